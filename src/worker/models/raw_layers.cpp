#include "worker/models/raw_layers.h"

#include <cmath>

#include "worker/models/initialize.h"
#include "worker/tensors/fused_norm.h"

namespace onestep {

RawLinearImpl::RawLinearImpl(std::int64_t in, std::int64_t out, bool with_bias, const torch::TensorOptions& options) {
  weight = register_parameter("weight", torch::empty({out, in}, options));
  if (with_bias) bias = register_parameter("bias", torch::empty({out}, options));
}

RawConv2dImpl::RawConv2dImpl(const RawConvOptions& shape, const torch::TensorOptions& options)
    : stride_(shape.stride), padding_(shape.padding) {
  weight = register_parameter("weight", torch::empty({shape.out, shape.in, shape.kernel, shape.kernel}, options));
  if (shape.bias) bias = register_parameter("bias", torch::empty({shape.out}, options));
}

torch::Tensor RawConv2dImpl::forward(const torch::Tensor& x) {
  if (weight.size(2) != 1) return torch::conv2d(x, weight, bias, stride_, padding_);
  const auto pixels = x.permute({0, 2, 3, 1});  // contiguous where x is channels last
  return torch::linear(pixels, weight.flatten(1), bias).permute({0, 3, 1, 2});
}

RawGroupNormImpl::RawGroupNormImpl(std::int64_t groups, std::int64_t channels, double epsilon,
                                   const torch::TensorOptions& options)
    : groups_(groups), epsilon_(epsilon) {
  weight = register_parameter("weight", torch::empty({channels}, options));
  bias = register_parameter("bias", torch::empty({channels}, options));
}

torch::Tensor RawGroupNormImpl::normalize(const torch::Tensor& x, bool silu) {
  const bool fused = x.is_cpu() && x.scalar_type() == torch::kFloat32;  // what the fused kernel is written for
  return (fused ? fused_norm : reference_norm)(x, weight, bias, {}, {groups_, epsilon_, silu});
}

RawLayerNormImpl::RawLayerNormImpl(std::int64_t width, double epsilon, const torch::TensorOptions& options)
    : epsilon_(epsilon) {
  weight = register_parameter("weight", torch::empty({width}, options));
  bias = register_parameter("bias", torch::empty({width}, options));
}

RawEmbeddingImpl::RawEmbeddingImpl(std::int64_t count, std::int64_t width, const torch::TensorOptions& options) {
  weight = register_parameter("weight", torch::empty({count, width}, options));
}

ModuleListBuilder::ModuleListBuilder(torch::nn::Module& parent, const std::string& name)
    : list_(parent.register_module(name, std::make_shared<torch::nn::Module>())) {}

void initialize_raw_layers(torch::nn::Module& module, std::uint64_t seed, const std::string& prefix) {
  torch::NoGradGuard no_grad;
  const auto initialize = [&](torch::nn::Module& layer, const std::string& path) {
    auto parameters = layer.named_parameters(/*recurse=*/false);
    if (parameters.is_empty()) return;
    torch::Tensor weight = parameters["weight"];
    torch::Tensor* bias = parameters.find("bias");
    const std::string name = path.empty() ? prefix : prefix + path + ".";
    if (layer.as<RawEmbeddingImpl>() != nullptr) {
      fill_keyed_normal(weight, seed, name + "weight", 0.02);
    } else if (weight.dim() == 1) {
      weight.fill_(1);
      bias->zero_();
    } else {
      const double bound = 1 / std::sqrt(static_cast<double>(weight.numel() / weight.size(0)));
      fill_keyed_uniform(weight, seed, name + "weight", bound);
      if (bias != nullptr) fill_keyed_uniform(*bias, seed, name + "bias", bound);
    }
  };
  initialize(module, "");
  for (const auto& item : module.named_modules("", /*include_self=*/false)) initialize(*item.value(), item.key());
}

}  // namespace onestep
