// Stable Diffusion's U-Net under diffusers' key names (class UNet2DConditionModel of SD 1.x and 2.x; Rombach et al. 2022).
#pragma once

#include <vector>

#include "worker/models/sd_unet_blocks.h"
#include "worker/models/sd_unet_config.h"
#include "worker/tensors/torch.h"

namespace onestep {

// Parameters have the dtype and device of `tensors` and undefined values until they are loaded or initialised (raw_layers.h).
class SdUnetImpl final : public torch::nn::Module {
 public:
  explicit SdUnetImpl(const SdUnetConfig& config, const torch::TensorOptions& tensors = torch::kFloat32);
  // x [B,in_channels,H,W] of the parameters' dtype, t [B] step indices (any number type), text [B,T,cross_attention_dim] of that dtype
  // -> the raw prediction [B,out_channels,H,W]. H and W of any size.
  torch::Tensor forward(const torch::Tensor& x, const torch::Tensor& t, const torch::Tensor& text);
  // What leaves mid_block, [B,block_out_channels.back(),h,w] of the last level; nothing behind it is computed.
  torch::Tensor bottleneck(const torch::Tensor& x, const torch::Tensor& t, const torch::Tensor& text);
  [[nodiscard]] const SdUnetConfig& config() const { return config_; }
  // Activation checkpointing, by residual block and transformer.
  void recompute_in_backward(bool on);

 private:
  [[nodiscard]] torch::Tensor embed_time(const torch::Tensor& t);
  // conv_in to mid_block; every output on the way down is added to `skips`.
  torch::Tensor encode(const torch::Tensor& x, const SdSignals& signals, std::vector<torch::Tensor>& skips);

  SdUnetConfig config_;
  RawConv2d conv_in{nullptr}, conv_out{nullptr};
  RawLinear time_linear_1_{nullptr}, time_linear_2_{nullptr};
  std::vector<SdDownBlock> down_blocks_;
  std::vector<SdUpBlock> up_blocks_;
  SdMidBlock mid_block{nullptr};
  RawGroupNorm conv_norm_out{nullptr};
};
TORCH_MODULE(SdUnet);

}  // namespace onestep
