// Layers whose parameters are reserved but not filled: for networks that are loaded, counted on the meta device, or filled by name.
#pragma once

#include <cstdint>
#include <string>

#include "worker/tensors/torch.h"

namespace onestep {

// All of them: parameters under PyTorch's names and shapes, of the dtype and on the device of `options`; until somebody fills them
// their values are undefined and their pages untouched. One device, one thread.

// y = x W^T + b; weight [out,in], bias [out] or none.
class RawLinearImpl final : public torch::nn::Module {
 public:
  RawLinearImpl(std::int64_t in, std::int64_t out, bool with_bias, const torch::TensorOptions& options);
  torch::Tensor forward(const torch::Tensor& x) { return torch::linear(x, weight, bias); }

  torch::Tensor weight, bias;
};
TORCH_MODULE(RawLinear);

struct RawConvOptions {
  std::int64_t in = 0, out = 0, kernel = 3, stride = 1, padding = 1;
  bool bias = true;
};

// weight [out,in,kernel,kernel], bias [out] or none. A 1x1 convolution runs as one matrix product over the pixels.
class RawConv2dImpl final : public torch::nn::Module {
 public:
  RawConv2dImpl(const RawConvOptions& shape, const torch::TensorOptions& options);
  // x [B,in,H,W], best channels last, which y then is.
  torch::Tensor forward(const torch::Tensor& x);

  torch::Tensor weight, bias;

 private:
  std::int64_t stride_, padding_;
};
TORCH_MODULE(RawConv2d);

// GroupNorm, optionally with SiLU behind it; weight and bias [channels].
class RawGroupNormImpl final : public torch::nn::Module {
 public:
  RawGroupNormImpl(std::int64_t groups, std::int64_t channels, double epsilon, const torch::TensorOptions& options);
  // x [B,C,H,W] -> the same shape, channels last.
  torch::Tensor forward(const torch::Tensor& x) { return normalize(x, false); }
  torch::Tensor forward_silu(const torch::Tensor& x) { return normalize(x, true); }
  [[nodiscard]] double epsilon() const { return epsilon_; }

  torch::Tensor weight, bias;

 private:
  torch::Tensor normalize(const torch::Tensor& x, bool silu);

  std::int64_t groups_;
  double epsilon_;
};
TORCH_MODULE(RawGroupNorm);

// LayerNorm over the last dimension.
class RawLayerNormImpl final : public torch::nn::Module {
 public:
  RawLayerNormImpl(std::int64_t width, double epsilon, const torch::TensorOptions& options);
  torch::Tensor forward(const torch::Tensor& x) {
    return torch::layer_norm(x, {weight.size(0)}, weight, bias, epsilon_);
  }

  torch::Tensor weight, bias;

 private:
  double epsilon_;
};
TORCH_MODULE(RawLayerNorm);

// weight [count,width]; ids int64 of any shape -> that shape with `width` behind it.
class RawEmbeddingImpl final : public torch::nn::Module {
 public:
  RawEmbeddingImpl(std::int64_t count, std::int64_t width, const torch::TensorOptions& options);
  torch::Tensor forward(const torch::Tensor& ids) { return torch::embedding(weight, ids); }

  torch::Tensor weight;
};
TORCH_MODULE(RawEmbedding);

// An empty module to hang numbered children on, as PyTorch's ModuleList: names "resnets.0", "resnets.1", ...
class ModuleListBuilder {
 public:
  ModuleListBuilder(torch::nn::Module& parent, const std::string& name);
  template <class Holder>
  Holder add(Holder module) {
    return list_->register_module(std::to_string(count_++), std::move(module));
  }
  // Leaves a number to a layer without parameters.
  void skip() { ++count_; }

 private:
  std::shared_ptr<torch::nn::Module> list_;
  std::int64_t count_ = 0;
};

// PyTorch's own initial values, keyed by (seed, prefix + name): uniform within 1/sqrt(fan_in) for weights and biases of linear maps and
// convolutions, one and zero for norms, N(0, 0.02) for embeddings. Every parameter of `module` is one of these layers'.
void initialize_raw_layers(torch::nn::Module& module, std::uint64_t seed, const std::string& prefix);

}  // namespace onestep
