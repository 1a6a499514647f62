// Stable Diffusion's autoencoder under diffusers' key names (class AutoencoderKL; Rombach et al. 2022, Sec. 3.1).
#pragma once

#include <vector>

#include "worker/models/autoencoder_kl_config.h"
#include "worker/models/sd_resnet.h"
#include "worker/models/sd_transformer.h"
#include "worker/tensors/torch.h"

namespace onestep {

// Resnet, one-headed self-attention, resnet, at the smallest level of encoder and decoder.
class VaeMidBlockImpl final : public torch::nn::Module {
 public:
  VaeMidBlockImpl(const AutoencoderKlConfig& config, const torch::TensorOptions& tensors);
  torch::Tensor forward(const torch::Tensor& x);

 private:
  SdAttention attention_{nullptr};
  std::vector<SdResnet> resnets_;
};
TORCH_MODULE(VaeMidBlock);

// images [B,in_channels,H,W] -> moments before quant_conv [B,2*latent_channels,H/8,W/8] (8 = 2^(levels - 1)).
class VaeEncoderImpl final : public torch::nn::Module {
 public:
  VaeEncoderImpl(const AutoencoderKlConfig& config, const torch::TensorOptions& tensors);
  torch::Tensor forward(const torch::Tensor& images);

 private:
  struct Level {
    std::vector<SdResnet> resnets;
    SdDownsample downsampler{nullptr};
  };
  RawConv2d conv_in{nullptr}, conv_out{nullptr};
  std::vector<Level> levels_;
  VaeMidBlock mid_block{nullptr};
  RawGroupNorm conv_norm_out{nullptr};
};
TORCH_MODULE(VaeEncoder);

// latents behind post_quant_conv [B,latent_channels,h,w] -> images [B,out_channels,8h,8w].
class VaeDecoderImpl final : public torch::nn::Module {
 public:
  VaeDecoderImpl(const AutoencoderKlConfig& config, const torch::TensorOptions& tensors);
  torch::Tensor forward(const torch::Tensor& latents);

 private:
  struct Level {
    std::vector<SdResnet> resnets;
    SdUpsample upsampler{nullptr};
  };
  RawConv2d conv_in{nullptr}, conv_out{nullptr};
  std::vector<Level> levels_;
  VaeMidBlock mid_block{nullptr};
  RawGroupNorm conv_norm_out{nullptr};
};
TORCH_MODULE(VaeDecoder);

// q(z | image): a diagonal normal distribution, [B,latent_channels,h,w] each.
struct LatentPosterior {
  torch::Tensor mean, logvar;  // logvar clamped to [-30, 20]
  // mean + exp(logvar / 2) noise; noise: standard normal of the mean's shape.
  [[nodiscard]] torch::Tensor sample(const torch::Tensor& noise) const { return mean + (0.5 * logvar).exp() * noise; }
};

// Encoder, decoder and the 1x1 convolutions between them. Parameters as in raw_layers.h.
class AutoencoderKlImpl final : public torch::nn::Module {
 public:
  explicit AutoencoderKlImpl(const AutoencoderKlConfig& config, const torch::TensorOptions& tensors = torch::kFloat32);
  // images [B,C,H,W] in [-1,1], of the parameters' dtype.
  LatentPosterior encode(const torch::Tensor& images);
  // z, not scaled -> images, about [-1,1], not clamped.
  torch::Tensor decode(const torch::Tensor& z);
  // The diffusion model's latents: scaling_factor * z, and back to images.
  [[nodiscard]] torch::Tensor latents_of(const torch::Tensor& z) const { return config_.scaling_factor * z; }
  torch::Tensor images_of(const torch::Tensor& latents) { return decode(latents / config_.scaling_factor); }
  [[nodiscard]] const AutoencoderKlConfig& config() const { return config_; }
  // Activation checkpointing, by residual block.
  void recompute_in_backward(bool on);

 private:
  AutoencoderKlConfig config_;
  VaeEncoder encoder{nullptr};
  VaeDecoder decoder{nullptr};
  RawConv2d quant_conv{nullptr}, post_quant_conv{nullptr};
};
TORCH_MODULE(AutoencoderKl);

}  // namespace onestep
