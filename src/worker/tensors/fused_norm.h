// GroupNorm with optional scale/shift and SiLU as one differentiable operation.
#pragma once

#include <cstdint>

#include "worker/tensors/torch.h"

namespace onestep {

struct FusedNormOptions {
  std::int64_t groups = 1;
  double epsilon = 1e-5;
  bool silu = true;
};

// x [B,C,H,W] fp32, best in channels-last memory, which y has; weight, bias [C]; scale_shift [B, 2C] (scale first) or undefined.
// y = act( (GN(x) * weight + bias) * (1 + scale) + shift ). Differentiable in every tensor.
torch::Tensor fused_norm(const torch::Tensor& x, const torch::Tensor& weight, const torch::Tensor& bias,
                         const torch::Tensor& scale_shift, const FusedNormOptions& options);

// The same by ATen's own operations: the slow twin.
torch::Tensor reference_norm(const torch::Tensor& x, const torch::Tensor& weight, const torch::Tensor& bias,
                             const torch::Tensor& scale_shift, const FusedNormOptions& options);

}  // namespace onestep
