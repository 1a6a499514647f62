// The residual block and the two resamplings that Stable Diffusion's U-Net and autoencoder share (diffusers: ResnetBlock2D,
// Downsample2D, Upsample2D).
#pragma once

#include <cstdint>

#include "worker/models/raw_layers.h"
#include "worker/tensors/torch.h"

namespace onestep {

struct SdResnetOptions {
  std::int64_t in_channels = 0, out_channels = 0;
  std::int64_t time_channels = 0;  // 0: no time embedding (autoencoder)
  std::int64_t groups = 32;
  double epsilon = 1e-5;           // of both norms: 1e-5 in the U-Net, 1e-6 in the autoencoder
};

// x -> shortcut(x) + conv2(silu(norm2(conv1(silu(norm1(x))) + time))).
class SdResnetImpl final : public torch::nn::Module {
 public:
  SdResnetImpl(const SdResnetOptions& options, const torch::TensorOptions& tensors);
  // x [B,in,H,W]; silu_time [B,time_channels], the time embedding behind its SiLU, or undefined -> [B,out,H,W].
  torch::Tensor forward(const torch::Tensor& x, const torch::Tensor& silu_time);
  // Activation checkpointing: less memory, one more forward pass, the same bits.
  void recompute_in_backward(bool on) { recompute_ = on; }

 private:
  torch::Tensor compute(const torch::Tensor& x_skip, const torch::Tensor& x, const torch::Tensor& silu_time);

  bool recompute_ = false;
  RawGroupNorm norm1{nullptr}, norm2{nullptr};
  RawConv2d conv1{nullptr}, conv2{nullptr}, conv_shortcut{nullptr};
  RawLinear time_emb_proj{nullptr};
};
TORCH_MODULE(SdResnet);

// 3x3 convolution of stride 2. The U-Net pads by one all round; the autoencoder's encoder by one on the right and below only.
class SdDownsampleImpl final : public torch::nn::Module {
 public:
  SdDownsampleImpl(std::int64_t channels, bool pad_one_side, const torch::TensorOptions& tensors);
  torch::Tensor forward(const torch::Tensor& x);

 private:
  bool pad_one_side_;
  RawConv2d conv{nullptr};
};
TORCH_MODULE(SdDownsample);

// Nearest neighbour, then a 3x3 convolution.
class SdUpsampleImpl final : public torch::nn::Module {
 public:
  SdUpsampleImpl(std::int64_t channels, const torch::TensorOptions& tensors);
  torch::Tensor forward(const torch::Tensor& x, std::int64_t height, std::int64_t width);

 private:
  RawConv2d conv{nullptr};
};
TORCH_MODULE(SdUpsample);

}  // namespace onestep
