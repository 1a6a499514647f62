// An image file in memory: bytes in, normalised tensors out.
#pragma once

#include <cstdint>
#include <string>

#include "common/job_spec.h"
#include "worker/tensors/torch.h"

namespace onestep {

// All of one image file (docs/formats.md). Immutable after construction, so any thread may read.
class ImageDataset {
 public:
  // Reads spec.path, checks format, version, shapes, types, label range and the SHA-256 of the
  // content, then averages boxes of pixels down to spec.resolution (0: as stored). Errors, each
  // naming file, what, expected and found: kNotFound; kCorrupt (not HDF5, truncated, another
  // format, wrong digest); kMismatch (the resolution does not divide the stored side).
  explicit ImageDataset(const DatasetSpec& spec);

  [[nodiscard]] const torch::Tensor& images() const {
    return images_;
  }  // [N,C,H,W] fp32: mean byte / 127.5 - 1
  [[nodiscard]] const torch::Tensor& labels() const {
    return labels_;
  }  // [N] int64 in [0, num_classes); zeros where the file has no labels
  [[nodiscard]] std::int64_t size() const { return images_.size(0); }
  [[nodiscard]] std::int64_t num_classes() const { return num_classes_; }  // 0: no labels
  // SHA-256 over the stored image bytes and the label bytes: names the data, whatever the
  // resolution.
  [[nodiscard]] const std::string& digest() const { return digest_; }

 private:
  torch::Tensor images_, labels_;
  std::int64_t num_classes_ = 0;
  std::string digest_;
};

}  // namespace onestep
