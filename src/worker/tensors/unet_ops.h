// What a U-Net needs beside convolutions and matrix products, as differentiable operations on grid kernels: on the CPU (slowly: the twin) and on a device.
// Tensors are fp32 or bfloat16, all of one dtype, and channels last; sums and statistics are fp32. No atomics: the same bits every time.
#pragma once

#include <cstdint>

#include "worker/tensors/torch.h"

namespace onestep {

struct NormAct {
  torch::Tensor x;            // [B,C,H,W]
  torch::Tensor residual;     // as x, or undefined
  torch::Tensor pre;          // [C] or [B,C], or undefined: a bias that x lacks
  torch::Tensor weight, bias; // [C]
  torch::Tensor scale_shift;  // [B,2C], scale first; or undefined
  std::int64_t groups = 1;
  double epsilon = 1e-5;
  double sum_scale = 1;
  bool silu = true;
};

struct NormActResult {
  torch::Tensor y;    // act((GN(sum) weight + bias) (1 + scale) + shift), act = SiLU or identity
  torch::Tensor sum;  // (x + pre + residual) sum_scale; undefined without residual
};

// Differentiable in every tensor. Errors: kInternal for dtypes or shapes that do not belong together.
NormActResult norm_act(const NormAct& arguments);

// (a + b + bias) scale; a, b [B,C,H,W], bias [C] or undefined.
torch::Tensor residual_sum(const torch::Tensor& a, const torch::Tensor& b, const torch::Tensor& bias, double scale);

struct Resample2 {
  bool up = false;
  std::int64_t taps = 2;  // 2: the filter (1, 1); 4: (1, 3, 3, 1)
  std::int64_t pad = 0;
};

// x [B,C,H,W] by two with the normalised filter; up, 4 times it, as conv_transpose2d and conv2d of stride 2 for each channel.
torch::Tensor resample2(const torch::Tensor& x, const Resample2& options);

// [N, C] or [B,C,H,W] -> [C]: the sum of everything else, in one order.
torch::Tensor column_sum(const torch::Tensor& x);

}  // namespace onestep
