// What the published U-Nets (ADM; DDPM++ and NCSN++) are made of: norms, convolutions with resampling, the residual block.
#pragma once

#include <cstdint>
#include <vector>

#include "worker/models/raw_layers.h"
#include "worker/tensors/torch.h"

namespace onestep {

// Groups of a norm over that many channels: min(32, channels / 4).
std::int64_t norm_groups(std::int64_t channels);
RawGroupNorm group_norm(std::int64_t channels, double epsilon);
// act((GN(x)) (1 + scale) + shift) in fp32, returned in x's dtype; scale_shift [B,2C] or undefined; act: SiLU or identity.
torch::Tensor normalize(RawGroupNorm& norm, const torch::Tensor& x, const torch::Tensor& scale_shift, bool silu);

enum class Resampling { kNone, kUp, kDown };

struct UnetConvOptions {
  std::int64_t in_channels = 0;
  std::int64_t out_channels = 0;
  std::int64_t kernel = 3;  // odd; 0: no weight, resampling alone
  Resampling resampling = Resampling::kNone;
  std::vector<std::int64_t> filter = {1, 1};  // of even length; its outer product, normalised, is the 2-D filter
  // Down only: the filter runs behind the convolution, and the bias is added last, rather than before it.
  bool fused = false;
};

// A convolution with x2 resampling before it. Published names: weight [out,in,k,k], bias [out] and, with resampling, the
// buffer resample_filter [1,1,f,f].
class UnetConvImpl : public torch::nn::Module {
 public:
  explicit UnetConvImpl(const UnetConvOptions& options);
  // x [B,in,H,W] -> [B,out,H',W'], H' = 2H (up), H/2 (down) or H. Channels-last memory is fastest.
  torch::Tensor forward(const torch::Tensor& x);
  // The same on the device's kernels, for whoever adds the bias later; not for `fused`, whose forward() has it all.
  torch::Tensor forward_without_bias(const torch::Tensor& x);

  torch::Tensor weight, bias;     // undefined with kernel 0
  torch::Tensor resample_filter;  // undefined without resampling

 private:
  [[nodiscard]] torch::Tensor resample(const torch::Tensor& x, std::int64_t padding) const;

  UnetConvOptions options_;
};
TORCH_MODULE(UnetConv);
UnetConv unet_conv(std::int64_t in_channels, std::int64_t out_channels, std::int64_t kernel);

struct UnetBlockOptions {
  std::int64_t in_channels = 0;
  std::int64_t out_channels = 0;
  std::int64_t emb_channels = 0;
  std::int64_t num_heads = 0;  // of self-attention behind the convolutions; 0: none
  Resampling resampling = Resampling::kNone;
  std::vector<std::int64_t> filter = {1, 1};
  bool adaptive_scale = true;            // the embedding scales and shifts (ADM); false: shifts before the norm (DDPM++)
  bool always_project_resampled = false;  // a 1x1 convolution in the skip of every resampling block (DDPM++)
  double skip_scale = 1;                 // of every residual sum
  double epsilon = 1e-5;                 // of the norms
};

// y = conv1(act(norm1(conv0(act(norm0(x)))))), the embedding at norm1; x = (skip(x) + y) skip_scale; then, with heads,
// x = (x + attention(norm2(x))) skip_scale. Children under the published names: norm0, conv0, affine, norm1, conv1, [skip],
// [norm2, qkv, proj].
class UnetBlockImpl : public torch::nn::Module {
 public:
  explicit UnetBlockImpl(const UnetBlockOptions& options);
  // x [B,in,H,W], emb [B,emb] -> [B,out,H',W'].
  torch::Tensor forward(const torch::Tensor& x, const torch::Tensor& emb);
  [[nodiscard]] std::int64_t in_channels() const { return options_.in_channels; }
  [[nodiscard]] std::int64_t out_channels() const { return options_.out_channels; }
  // Keep only the input for the backward pass and compute the rest again there; the gradients' bits stay.
  void recompute_in_backward(bool on) { recompute_ = on; }
  // The device's way, on the CPU too, where it is slow: for tests. On a device it is the only one.
  void use_grid_kernels(bool on) { grid_kernels_ = on; }

 private:
  // x comes twice, for the skip and for the convolutions: see forward().
  torch::Tensor compute(const torch::Tensor& x_skip, const torch::Tensor& x, const torch::Tensor& emb);
  torch::Tensor attend(const torch::Tensor& x);
  // unet_block_grid.cpp: norms, biases and sums fused around convolutions and matrix products.
  torch::Tensor compute_on_grid(const torch::Tensor& x_skip, const torch::Tensor& x, const torch::Tensor& emb);
  torch::Tensor attention_on_grid(const torch::Tensor& normalized);
  [[nodiscard]] torch::Tensor scaled_sum(const torch::Tensor& a, const torch::Tensor& b) const;

  UnetBlockOptions options_;
  bool recompute_ = false, grid_kernels_ = false;
  RawGroupNorm norm0{nullptr}, norm1{nullptr}, norm2{nullptr};
  UnetConv conv0{nullptr}, conv1{nullptr}, skip{nullptr}, qkv{nullptr}, proj{nullptr};
  RawLinear affine{nullptr};
};
TORCH_MODULE(UnetBlock);

}  // namespace onestep
