#include "worker/tensors/norm_kernels.h"

#include <bit>
#include <cmath>

#define ONESTEP_CLONES __attribute__((target_clones("arch=x86-64-v3", "default")))

namespace onestep {
namespace {

constexpr int kLanes = 16;

// e^x for |x| <= 87: 2^n times a polynomial on [-ln 2 / 2, ln 2 / 2]; relative error below 2e-7.
inline float exp_poly(float x) {
  x = x < -87.0f ? -87.0f : x;
  x = x > 87.0f ? 87.0f : x;
  const float n = __builtin_rintf(x * 1.44269504f);
  float r = __builtin_fmaf(n, -0.693145752f, x);
  r = __builtin_fmaf(n, -1.42860677e-6f, r);
  float p = __builtin_fmaf(r, 1.0f / 5040.0f, 1.0f / 720.0f);
  p = __builtin_fmaf(r, p, 1.0f / 120.0f);
  p = __builtin_fmaf(r, p, 1.0f / 24.0f);
  p = __builtin_fmaf(r, p, 1.0f / 6.0f);
  p = __builtin_fmaf(r, p, 0.5f);
  p = __builtin_fmaf(r, p, 1.0f);
  p = __builtin_fmaf(r, p, 1.0f);
  return p * std::bit_cast<float>((static_cast<std::int32_t>(n) + 127) << 23);
}

inline float sigmoid(float z) { return 1.0f / (1.0f + exp_poly(-z)); }

// Sixteen partial sums in a fixed order, then a fixed tree.
struct LaneSum {
  float lanes[kLanes] = {};
  [[nodiscard]] float total() const {
    float t[kLanes];
    for (int l = 0; l < kLanes; ++l) t[l] = lanes[l];
    for (int width = kLanes / 2; width > 0; width /= 2) {
      for (int l = 0; l < width; ++l) t[l] += t[l + width];
    }
    return t[0];
  }
};

struct Moments {
  float mean, rstd;
};

inline Moments moments(const float* x, std::int64_t count, float epsilon) {
  LaneSum sum;
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int l = 0; l < kLanes; ++l) sum.lanes[l] += x[i + l];
  }
  for (int l = 0; i + l < count; ++l) sum.lanes[l] += x[i + l];
  const float mean = sum.total() / static_cast<float>(count);
  LaneSum squares;
  i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int l = 0; l < kLanes; ++l) {
      const float d = x[i + l] - mean;
      squares.lanes[l] = __builtin_fmaf(d, d, squares.lanes[l]);
    }
  }
  for (int l = 0; i + l < count; ++l) {
    const float d = x[i + l] - mean;
    squares.lanes[l] = __builtin_fmaf(d, d, squares.lanes[l]);
  }
  return {mean, 1.0f / std::sqrt(squares.total() / static_cast<float>(count) + epsilon)};
}

// Per (sample, channel): y = gain * normalised + offset.
struct ChannelAffine {
  float gain, offset;
};
inline ChannelAffine channel_affine(const NormAffine& affine, std::int64_t b, std::int64_t c) {
  if (affine.scale == nullptr) return {affine.weight[c], affine.bias[c]};
  const float scale = 1.0f + affine.scale[b * affine.scale_stride + c];
  const float shift = affine.shift[b * affine.scale_stride + c];
  return {affine.weight[c] * scale, __builtin_fmaf(affine.bias[c], scale, shift)};
}

}  // namespace

ONESTEP_CLONES
void norm_forward(const NormShape& shape, const NormAffine& affine, float epsilon, const float* x, float* y, float* mean,
                  float* rstd) {
  const std::int64_t group_channels = shape.channels / shape.groups;
  const std::int64_t pixels = shape.pixels;
  for (std::int64_t b = 0; b < shape.batch; ++b) {
    for (std::int64_t g = 0; g < shape.groups; ++g) {
      const std::int64_t first = b * shape.channels + g * group_channels;
      const Moments m = moments(x + first * pixels, group_channels * pixels, epsilon);
      mean[b * shape.groups + g] = m.mean;
      rstd[b * shape.groups + g] = m.rstd;
      for (std::int64_t k = 0; k < group_channels; ++k) {
        const ChannelAffine a = channel_affine(affine, b, g * group_channels + k);
        const float gain = a.gain * m.rstd;
        const float offset = __builtin_fmaf(-m.mean, gain, a.offset);
        const float* __restrict in = x + (first + k) * pixels;
        float* __restrict out = y + (first + k) * pixels;
        if (affine.silu) {
          for (std::int64_t i = 0; i < pixels; ++i) {
            const float z = __builtin_fmaf(in[i], gain, offset);
            out[i] = z * sigmoid(z);
          }
        } else {
          for (std::int64_t i = 0; i < pixels; ++i) out[i] = __builtin_fmaf(in[i], gain, offset);
        }
      }
    }
  }
}

ONESTEP_CLONES
void norm_backward(const NormShape& shape, const NormAffine& affine, const float* dy, const float* x,
                   const float* mean, const float* rstd, const NormGradients& gradients) {
  const std::int64_t group_channels = shape.channels / shape.groups;
  const std::int64_t pixels = shape.pixels;
  for (std::int64_t c = 0; c < shape.channels; ++c) gradients.dweight[c] = gradients.dbias[c] = 0.0f;
  for (std::int64_t b = 0; b < shape.batch; ++b) {
    for (std::int64_t g = 0; g < shape.groups; ++g) {
      const float mu = mean[b * shape.groups + g];
      const float inverse = rstd[b * shape.groups + g];
      float group_dz = 0.0f;   // sum over the group of gain * dz
      float group_dzx = 0.0f;  // and of gain * dz * normalised x
      // First pass: dz into dx, sums per channel.
      for (std::int64_t k = 0; k < group_channels; ++k) {
        const std::int64_t c = g * group_channels + k;
        const ChannelAffine a = channel_affine(affine, b, c);
        const float gain = a.gain * inverse;
        const float offset = __builtin_fmaf(-mu, gain, a.offset);
        const float* __restrict in = x + (b * shape.channels + c) * pixels;
        const float* __restrict upstream = dy + (b * shape.channels + c) * pixels;
        float* __restrict dz = gradients.dx + (b * shape.channels + c) * pixels;
        if (affine.silu) {
          for (std::int64_t i = 0; i < pixels; ++i) {
            const float z = __builtin_fmaf(in[i], gain, offset);
            const float s = sigmoid(z);
            dz[i] = upstream[i] * (s * __builtin_fmaf(z, 1.0f - s, 1.0f));
          }
        } else {
          for (std::int64_t i = 0; i < pixels; ++i) dz[i] = upstream[i];
        }
        LaneSum sum, sum_x;
        std::int64_t i = 0;
        for (; i + kLanes <= pixels; i += kLanes) {
          for (int l = 0; l < kLanes; ++l) {
            sum.lanes[l] += dz[i + l];
            sum_x.lanes[l] = __builtin_fmaf(dz[i + l], (in[i + l] - mu) * inverse, sum_x.lanes[l]);
          }
        }
        for (int l = 0; i + l < pixels; ++l) {
          sum.lanes[l] += dz[i + l];
          sum_x.lanes[l] = __builtin_fmaf(dz[i + l], (in[i + l] - mu) * inverse, sum_x.lanes[l]);
        }
        const float dz_sum = sum.total();
        const float dzx_sum = sum_x.total();
        group_dz = __builtin_fmaf(a.gain, dz_sum, group_dz);
        group_dzx = __builtin_fmaf(a.gain, dzx_sum, group_dzx);
        if (affine.scale != nullptr) {
          const float scale = 1.0f + affine.scale[b * affine.scale_stride + c];
          gradients.dscale[b * shape.channels + c] =
              __builtin_fmaf(affine.weight[c], dzx_sum, affine.bias[c] * dz_sum);
          gradients.dshift[b * shape.channels + c] = dz_sum;
          gradients.dweight[c] = __builtin_fmaf(scale, dzx_sum, gradients.dweight[c]);
          gradients.dbias[c] = __builtin_fmaf(scale, dz_sum, gradients.dbias[c]);
        } else {
          gradients.dweight[c] += dzx_sum;
          gradients.dbias[c] += dz_sum;
        }
      }
      // Second pass: through the normalisation.
      const float count = static_cast<float>(group_channels * pixels);
      const float m1 = group_dz / count;
      const float m2 = group_dzx / count;
      for (std::int64_t k = 0; k < group_channels; ++k) {
        const std::int64_t c = g * group_channels + k;
        const float gain = channel_affine(affine, b, c).gain;
        const float* __restrict in = x + (b * shape.channels + c) * pixels;
        float* __restrict dz = gradients.dx + (b * shape.channels + c) * pixels;
        for (std::int64_t i = 0; i < pixels; ++i) {
          const float normalised = (in[i] - mu) * inverse;
          dz[i] = inverse * (__builtin_fmaf(gain, dz[i], -m1) - normalised * m2);
        }
      }
    }
  }
}

}  // namespace onestep
