// The latents of an image set: what an autoencoder makes of each image, with the image's class, in one checked file.
#pragma once

#include <cstdint>
#include <string>

#include "worker/tensors/torch.h"

namespace onestep {

// Immutable after construction, so any thread may read.
struct LatentDataset {
  torch::Tensor latents;           // [N,C,h,w] fp32: scaling_factor times the mean of the posterior
  torch::Tensor labels;            // [N] int64 in [0, num_classes); zeros where the images have no classes
  std::int64_t num_classes = 0;    // 0: the images have none
  std::string images_sha256;       // names the image set (ImageDataset::digest())
  std::string autoencoder_sha256;  // names the autoencoder (autoencoder_sha256() in run)

  [[nodiscard]] std::int64_t size() const { return latents.size(0); }
  // SHA-256 that names the set: over the facts above and the bytes of both tensors.
  [[nodiscard]] std::string digest() const;
};

// The file's name in the output folder of an encode job.
constexpr const char* kLatentFileName = "latents.safetensors";

// Writes durably; equal input, equal bytes. Errors: kIo.
void write_latents(const std::string& path, const LatentDataset& set);
// Reads the whole file and compares its digest. Errors, each naming file, what, expected and found: kNotFound, kCorrupt.
LatentDataset read_latents(const std::string& path);

}  // namespace onestep
