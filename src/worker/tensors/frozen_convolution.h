// A convolution whose weights never change, with its ReLU: the weights are laid out once, for the forward and for the backward pass.
#pragma once

#include "worker/tensors/torch.h"

namespace onestep {

// relu(x * weight + bias), stride 1, padding that keeps the size; differentiable in x alone. ATen's conv2d and relu, which lay the
// weights out anew at every call, give the same but for the order of additions. CPU and fp32 until move_to(), from where on it is
// these two themselves. Otherwise immutable, any thread.
class FrozenConvolution {
 public:
  FrozenConvolution() = default;
  // weight [out,in,K,K], K odd; bias [out].
  FrozenConvolution(const torch::Tensor& weight, const torch::Tensor& bias);
  // x [B,in,H,W], best in channels-last memory, which the result [B,out,H,W] has.
  [[nodiscard]] torch::Tensor operator()(const torch::Tensor& x) const;
  void move_to(const torch::Device& device, torch::ScalarType dtype);
  [[nodiscard]] torch::ScalarType dtype() const { return weight_.scalar_type(); }

 private:
  torch::Tensor weight_, bias_;               // channels last
  torch::Tensor packed_, packed_backward_;    // oneDNN's own layout; undefined behind move_to()
  std::int64_t padding_ = 0;
};

}  // namespace onestep
