// DMD2's discriminator (arXiv 2405.14867, Sec. 4.3): a small head on the bottleneck of the fake score's U-Net.
#pragma once

#include <cstdint>
#include <vector>

#include "worker/diffusion/denoiser.h"
#include "worker/diffusion/discriminator.h"
#include "worker/models/raw_layers.h"
#include "worker/tensors/torch.h"

namespace onestep {

// 4x4 convolutions of stride 2, each with GroupNorm and SiLU behind it, as many as bring `side` to 1; then a 1x1 convolution to one
// channel. Children conv0, norm0, conv1, ..., out. Initial values as PyTorch's, keyed.
class DiscriminatorHeadImpl final : public torch::nn::Module {
 public:
  DiscriminatorHeadImpl(std::int64_t channels, std::int64_t side, std::uint64_t seed);
  // features [B,channels,side,side] fp32 -> logits [B].
  torch::Tensor forward(const torch::Tensor& features);

 private:
  std::vector<RawConv2d> convs_;
  std::vector<RawGroupNorm> norms_;
  RawConv2d out{nullptr};
};
TORCH_MODULE(DiscriminatorHead);

// The head joins the denoiser's module as its last child, `discriminator`: one flat buffer holds both, the head behind the rest.
// `denoiser` must outlive it; its weights are loaded before.
class BottleneckDiscriminator final : public Discriminator {
 public:
  // Errors: kConfig for a denoiser without a bottleneck.
  BottleneckDiscriminator(Denoiser& denoiser, std::uint64_t seed);
  torch::Tensor logit(const torch::Tensor& x_t, const torch::Tensor& t, const Condition& condition) override;

 private:
  Denoiser& denoiser_;
  DiscriminatorHead head_;
};

}  // namespace onestep
