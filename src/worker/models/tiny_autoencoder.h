// TAESD, the tiny autoencoder of Stable Diffusion's latents, under diffusers' key names (class AutoencoderTiny).
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "worker/models/raw_layers.h"
#include "worker/tensors/torch.h"

namespace onestep {

// The defaults are those of TAESD.
struct TinyAutoencoderConfig {
  std::int64_t in_channels = 3, out_channels = 3, latent_channels = 4;
  std::vector<std::int64_t> encoder_block_out_channels = {64, 64, 64, 64};
  std::vector<std::int64_t> decoder_block_out_channels = {64, 64, 64, 64};
  std::vector<std::int64_t> num_encoder_blocks = {1, 3, 3, 3};
  std::vector<std::int64_t> num_decoder_blocks = {3, 3, 3, 1};
  double scaling_factor = 1.0;  // its latents are the diffusion model's own
};

// Strict, as sd_unet_config_from_json(). Errors: ConfigError.
TinyAutoencoderConfig tiny_autoencoder_config_from_json(const nlohmann::json& document, const std::string& where);
nlohmann::json to_diffusers_json(const TinyAutoencoderConfig& config);

// Three 3x3 convolutions with ReLU between, added to the input, ReLU.
class TinyBlockImpl final : public torch::nn::Module {
 public:
  TinyBlockImpl(std::int64_t channels, const torch::TensorOptions& tensors);
  torch::Tensor forward(const torch::Tensor& x);

 private:
  std::vector<RawConv2d> convolutions_;
};
TORCH_MODULE(TinyBlock);

// images [B,C,H,W] in [-1,1] <-> latents [B,latent_channels,H/8,W/8]. Parameters as in raw_layers.h.
class TinyAutoencoderImpl final : public torch::nn::Module {
 public:
  explicit TinyAutoencoderImpl(const TinyAutoencoderConfig& config, const torch::TensorOptions& tensors = torch::kFloat32);
  torch::Tensor encode(const torch::Tensor& images);
  // Images about [-1,1], not clamped.
  torch::Tensor decode(const torch::Tensor& latents);
  [[nodiscard]] torch::Tensor latents_of(const torch::Tensor& z) const { return config_.scaling_factor * z; }
  torch::Tensor images_of(const torch::Tensor& latents) { return decode(latents / config_.scaling_factor); }
  [[nodiscard]] const TinyAutoencoderConfig& config() const { return config_; }

 private:
  using Layer = std::function<torch::Tensor(const torch::Tensor&)>;
  [[nodiscard]] std::vector<Layer> build_encoder(const torch::TensorOptions& tensors);
  [[nodiscard]] std::vector<Layer> build_decoder(const torch::TensorOptions& tensors);

  TinyAutoencoderConfig config_;
  std::vector<Layer> encoder_, decoder_;  // in the order of `layers`
};
TORCH_MODULE(TinyAutoencoder);

}  // namespace onestep
