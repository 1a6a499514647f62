// GroupNorm, scale/shift and SiLU in one pass over plain memory; forward and backward. No torch here.
#pragma once

#include <cstdint>

namespace onestep {

struct NormShape {
  std::int64_t batch = 0, channels = 0, pixels = 0, groups = 0;  // x is [batch, pixels, channels], contiguous
};

// y = act( (normalised(x) * weight + bias) * (1 + scale) + shift ), act = SiLU or identity.
struct NormAffine {
  const float* weight = nullptr;  // [channels]
  const float* bias = nullptr;    // [channels]
  const float* scale = nullptr;   // [batch] rows of `scale_stride` floats, or nullptr for no scale and shift
  const float* shift = nullptr;
  std::int64_t scale_stride = 0;  // floats between rows of scale and of shift
  bool silu = true;
};

// Writes y, and mean and reciprocal deviation [batch, groups] for the backward pass. Every sum runs channel by
// channel in the order of the pixels: the bits do not depend on the vector width.
void norm_forward(const NormShape& shape, const NormAffine& affine, float epsilon, const float* x, float* y, float* mean,
                  float* rstd);

// dx [batch, pixels, channels]; dweight, dbias [channels]; dscale, dshift as scale and shift (only with these).
struct NormGradients {
  float* dx = nullptr;
  float* dweight = nullptr;
  float* dbias = nullptr;
  float* dscale = nullptr;
  float* dshift = nullptr;
};
void norm_backward(const NormShape& shape, const NormAffine& affine, const float* dy, const float* x,
                   const float* mean, const float* rstd, const NormGradients& gradients);

}  // namespace onestep
