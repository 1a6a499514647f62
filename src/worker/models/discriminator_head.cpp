#include "worker/models/discriminator_head.h"

#include <string>

#include "worker/models/unet_block.h"

namespace onestep {
namespace {

constexpr double kHeadNormEpsilon = 1e-5;
constexpr std::int64_t kHeadKernel = 4, kHeadStride = 2, kHeadPadding = 1;

}  // namespace

DiscriminatorHeadImpl::DiscriminatorHeadImpl(std::int64_t channels, std::int64_t side, std::uint64_t seed) {
  for (; side > 1; side = (side + 2 * kHeadPadding - kHeadKernel) / kHeadStride + 1) {
    const std::string number = std::to_string(convs_.size());
    convs_.push_back(register_module("conv" + number,
                                     RawConv2d(RawConvOptions{channels, channels, kHeadKernel, kHeadStride, kHeadPadding}, torch::kFloat32)));
    norms_.push_back(register_module("norm" + number, group_norm(channels, kHeadNormEpsilon)));
  }
  out = register_module("out", RawConv2d(RawConvOptions{channels, 1, 1, 1, 0}, torch::kFloat32));
  initialize_raw_layers(*this, seed, "discriminator.");
}

torch::Tensor DiscriminatorHeadImpl::forward(const torch::Tensor& features) {
  torch::Tensor h = features;
  for (std::size_t i = 0; i < convs_.size(); ++i) h = norms_[i]->forward_silu(convs_[i](h));
  return out(h).flatten();
}

BottleneckDiscriminator::BottleneckDiscriminator(Denoiser& denoiser, std::uint64_t seed)
    : denoiser_(denoiser),
      head_(denoiser.module().register_module(
          "discriminator", DiscriminatorHead(denoiser.bottleneck_shape().channels, denoiser.bottleneck_shape().height, seed))) {}

torch::Tensor BottleneckDiscriminator::logit(const torch::Tensor& x_t, const torch::Tensor& t, const Condition& condition) {
  return head_(denoiser_.bottleneck(x_t, t, condition));
}

}  // namespace onestep
