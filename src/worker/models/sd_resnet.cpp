#include "worker/models/sd_resnet.h"

#include <vector>

#include "worker/tensors/recompute.h"

namespace onestep {

SdResnetImpl::SdResnetImpl(const SdResnetOptions& options, const torch::TensorOptions& tensors) {
  const std::int64_t in = options.in_channels, out = options.out_channels;
  norm1 = register_module("norm1", RawGroupNorm(options.groups, in, options.epsilon, tensors));
  conv1 = register_module("conv1", RawConv2d(RawConvOptions{in, out}, tensors));
  if (options.time_channels > 0) {
    time_emb_proj = register_module("time_emb_proj", RawLinear(options.time_channels, out, true, tensors));
  }
  norm2 = register_module("norm2", RawGroupNorm(options.groups, out, options.epsilon, tensors));
  conv2 = register_module("conv2", RawConv2d(RawConvOptions{out, out}, tensors));
  if (in != out) {
    conv_shortcut = register_module("conv_shortcut", RawConv2d(RawConvOptions{in, out, 1, 1, 0}, tensors));
  }
}

// x enters twice, its skip in front: the order in which the plain graph adds their gradients.
torch::Tensor SdResnetImpl::forward(const torch::Tensor& x, const torch::Tensor& silu_time) {
  if (!recompute_ || !torch::GradMode::is_enabled()) return compute(x, x, silu_time);
  std::vector<torch::Tensor> inputs = {x, x};
  if (silu_time.defined()) inputs.push_back(silu_time);
  return recomputed([this](const std::vector<torch::Tensor>& in) { return compute(in[0], in[1], in.size() > 2 ? in[2] : torch::Tensor()); },
                    inputs, parameters());
}

torch::Tensor SdResnetImpl::compute(const torch::Tensor& x_skip, const torch::Tensor& x, const torch::Tensor& silu_time) {
  auto h = conv1(norm1->forward_silu(x));
  if (!time_emb_proj.is_empty()) h = h + time_emb_proj(silu_time).unsqueeze(-1).unsqueeze(-1);
  h = conv2(norm2->forward_silu(h));
  return (conv_shortcut.is_empty() ? x_skip : conv_shortcut(x_skip)) + h;
}

SdDownsampleImpl::SdDownsampleImpl(std::int64_t channels, bool pad_one_side, const torch::TensorOptions& tensors)
    : pad_one_side_(pad_one_side) {
  conv = register_module("conv", RawConv2d(RawConvOptions{channels, channels, 3, 2, pad_one_side ? 0 : 1}, tensors));
}

torch::Tensor SdDownsampleImpl::forward(const torch::Tensor& x) {
  return conv(pad_one_side_ ? torch::constant_pad_nd(x, {0, 1, 0, 1}) : x);
}

SdUpsampleImpl::SdUpsampleImpl(std::int64_t channels, const torch::TensorOptions& tensors) {
  conv = register_module("conv", RawConv2d(RawConvOptions{channels, channels}, tensors));
}

torch::Tensor SdUpsampleImpl::forward(const torch::Tensor& x, std::int64_t height, std::int64_t width) {
  return conv(torch::upsample_nearest2d(x, {height, width}));
}

}  // namespace onestep
