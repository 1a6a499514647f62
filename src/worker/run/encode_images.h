// Images through an autoencoder's encoder, and which images fit it.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "worker/data/image_dataset.h"
#include "worker/models/autoencoder_kl.h"
#include "worker/tensors/torch.h"

namespace onestep {

// Errors: kMismatch naming `path` when the images' channels are not the network's, or their side is not a multiple of its factor.
void check_images_fit(const AutoencoderKlConfig& config, const ImageDataset& dataset, const std::string& path);

// Of all images in order, [N,latent_channels,h,w] fp32, not scaled; `batch` images a network call, `done(images)` behind each.
torch::Tensor posterior_means(AutoencoderKl& vae, const ImageDataset& dataset, std::int64_t batch,
                              const std::function<void(std::int64_t)>& done);

}  // namespace onestep
