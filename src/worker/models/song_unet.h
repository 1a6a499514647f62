// The U-Net of Song et al. 2021 (DDPM++ and NCSN++) as EDM publishes it: class SongUNet, its key names and its layout.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "common/job_spec.h"
#include "worker/models/unet.h"
#include "worker/tensors/torch.h"

namespace onestep {

// DDPM++: positional embedding, standard encoder, filter [1,1]. NCSN++: Fourier embedding, residual encoder (the image itself,
// downsampled, joins every level), filter [1,3,3,1]. The decoder is the standard one. Dropout is off, as in distillation.
class SongUnetImpl final : public Unet {
 public:
  explicit SongUnetImpl(const NetworkSpec& spec);
  torch::Tensor forward(const torch::Tensor& x, const torch::Tensor& c_noise, const torch::Tensor& labels) override;
  torch::Tensor bottleneck(const torch::Tensor& x, const torch::Tensor& c_noise, const torch::Tensor& labels) override;
  void initialize(std::uint64_t seed, const std::string& prefix) override;

 private:
  [[nodiscard]] torch::Tensor embed(const torch::Tensor& c_noise, const torch::Tensor& labels);
  // Encoder and middle; `skips` takes the encoder's outputs.
  torch::Tensor run_to_middle(const torch::Tensor& x, const torch::Tensor& emb, std::vector<torch::Tensor>& skips);
  void build_encoder(std::vector<std::int64_t>& skip_channels);
  void build_decoder(std::vector<std::int64_t> skip_channels);
  [[nodiscard]] std::int64_t width(std::int64_t level) const;
  [[nodiscard]] std::int64_t num_levels() const { return static_cast<std::int64_t>(spec_.channel_mult.size()); }

  // A block of the encoder and, behind the downsampling ones of NCSN++, the image's own path.
  struct Step {
    UnetBlock block{nullptr};
    UnetConv image{nullptr};
  };

  NetworkSpec spec_;
  UnetBlockOptions block_;     // what all blocks share
  torch::Tensor frequencies_;  // [noise channels / 2]: constants, or the buffer map_noise.freqs
  // map_augment is kept for the files' sake: without augmentation labels it adds nothing.
  RawLinear map_label{nullptr}, map_augment{nullptr}, map_layer0{nullptr}, map_layer1{nullptr};
  UnetConv first_conv_{nullptr};
  std::vector<Step> encoder_;
  std::vector<UnetBlock> decoder_;
  RawGroupNorm aux_norm_{nullptr};
  UnetConv aux_conv_{nullptr};
};
TORCH_MODULE(SongUnet);

}  // namespace onestep
