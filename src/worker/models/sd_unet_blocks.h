// The levels of Stable Diffusion's U-Net (diffusers: CrossAttnDownBlock2D, DownBlock2D, UNetMidBlock2DCrossAttn, CrossAttnUpBlock2D,
// UpBlock2D).
#pragma once

#include <cstdint>
#include <vector>

#include "worker/models/sd_resnet.h"
#include "worker/models/sd_transformer.h"
#include "worker/models/sd_unet_config.h"
#include "worker/tensors/torch.h"

namespace onestep {

// What every block of one U-Net sees besides its input.
struct SdSignals {
  torch::Tensor silu_time;  // [B, 4 * block_out_channels[0]], behind its SiLU
  torch::Tensor text;       // [B,T,cross_attention_dim]
};

struct SdLevelOptions {
  std::int64_t in_channels = 0, out_channels = 0;
  std::int64_t heads = 0;     // 0: no attention
  bool resample = false;      // down- or upsampling behind the layers
};

// layers_per_block times resnet (and transformer), then the downsampling; every output is a skip.
class SdDownBlockImpl final : public torch::nn::Module {
 public:
  SdDownBlockImpl(const SdUnetConfig& config, const SdLevelOptions& level, const torch::TensorOptions& tensors);
  // Pushes each output to `skips`; returns the last.
  torch::Tensor forward(torch::Tensor x, const SdSignals& signals, std::vector<torch::Tensor>& skips);

 private:
  std::vector<SdTransformer> attentions_;
  std::vector<SdResnet> resnets_;
  SdDownsample downsampler_{nullptr};
};
TORCH_MODULE(SdDownBlock);

// Resnet, transformer, resnet at the smallest level.
class SdMidBlockImpl final : public torch::nn::Module {
 public:
  SdMidBlockImpl(const SdUnetConfig& config, const torch::TensorOptions& tensors);
  torch::Tensor forward(const torch::Tensor& x, const SdSignals& signals);

 private:
  SdTransformer attention_{nullptr};
  std::vector<SdResnet> resnets_;
};
TORCH_MODULE(SdMidBlock);

// layers_per_block + 1 times: joins the last skip, resnet (and transformer); then the upsampling to the size of the next skip.
class SdUpBlockImpl final : public torch::nn::Module {
 public:
  // level.in_channels: of what comes from below; skip_channels: of the skips, in the order they are taken.
  SdUpBlockImpl(const SdUnetConfig& config, const SdLevelOptions& level, const std::vector<std::int64_t>& skip_channels,
                const torch::TensorOptions& tensors);
  // Pops its skips from the back of `skips`.
  torch::Tensor forward(torch::Tensor x, const SdSignals& signals, std::vector<torch::Tensor>& skips);

 private:
  std::vector<SdTransformer> attentions_;
  std::vector<SdResnet> resnets_;
  SdUpsample upsampler_{nullptr};
};
TORCH_MODULE(SdUpBlock);

}  // namespace onestep
