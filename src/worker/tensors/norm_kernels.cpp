#include "worker/tensors/norm_kernels.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "worker/tensors/host_ops.h"
#include "worker/tensors/smooth_functions.h"

#define ONESTEP_INLINE __attribute__((always_inline))
#define ONESTEP_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))

namespace onestep {
namespace {

constexpr std::int64_t kLanes = 16;
constexpr std::int64_t kChunk = 64;  // pixels summed before their sum joins the total: keeps rounding small

inline float sigmoid(float z) { return onestep::sigmoid<HostOps>(z); }

using Lanes = float __attribute__((vector_size(kLanes * sizeof(float)), aligned(alignof(float)), may_alias));

// What lies at p, as sixteen floats or as one: as `kind` is.
inline const Lanes& at(const Lanes& /*kind*/, const float* p) { return *reinterpret_cast<const Lanes*>(p); }
inline const float& at(const float& /*kind*/, const float* p) { return *p; }

// What one sample's channels need, [channels] each.
struct ChannelScratch {
  explicit ChannelScratch(std::int64_t channels) : values(kArrays * channels), stride(channels) {}
  float* mean() { return values.data(); }
  float* gain() { return values.data() + stride; }
  float* offset() { return values.data() + 2 * stride; }
  float* sum() { return values.data() + 3 * stride; }
  float* sum_product() { return values.data() + 4 * stride; }
  static constexpr std::int64_t kArrays = 5;
  std::vector<float> values;
  std::int64_t stride;
};

// total[c] = sum over the pixels of a term, channel by channel in the order of the pixels: the bits do not depend on the
// width of a vector. `term(sum, i, c)` adds element i, of channel c, to sum: sixteen channels at once, and one by one
// those left over.
template <typename Term>
ONESTEP_INLINE inline void sum_pixels(const NormShape& shape, float* total, Term term) {
  const std::int64_t whole = shape.channels / kLanes * kLanes;
  for (std::int64_t c = 0; c < whole; c += kLanes) {
    Lanes sum = {};
    for (std::int64_t first = 0; first < shape.pixels; first += kChunk) {
      const std::int64_t last = first + kChunk < shape.pixels ? first + kChunk : shape.pixels;
      Lanes chunk = {};
      for (std::int64_t p = first; p < last; ++p) term(chunk, p * shape.channels + c, c);
      sum += chunk;
    }
    *reinterpret_cast<Lanes*>(total + c) = sum;
  }
  for (std::int64_t c = whole; c < shape.channels; ++c) {
    float sum = 0.0f;
    for (std::int64_t first = 0; first < shape.pixels; first += kChunk) {
      const std::int64_t last = first + kChunk < shape.pixels ? first + kChunk : shape.pixels;
      float chunk = 0.0f;
      for (std::int64_t p = first; p < last; ++p) term(chunk, p * shape.channels + c, c);
      sum += chunk;
    }
    total[c] = sum;
  }
}

// Gain and offset of sample b's channels, such that act's argument is fma(x, gain, offset).
inline void channel_affine(const NormShape& shape, const NormAffine& affine, std::int64_t b, const float* mean,
                           const float* rstd, float* gain, float* offset) {
  const std::int64_t group_channels = shape.channels / shape.groups;
  const float* scale = affine.scale == nullptr ? nullptr : affine.scale + b * affine.scale_stride;
  const float* shift = affine.shift == nullptr ? nullptr : affine.shift + b * affine.scale_stride;
  for (std::int64_t g = 0; g < shape.groups; ++g) {
    for (std::int64_t c = g * group_channels; c < (g + 1) * group_channels; ++c) {
      float weight = affine.weight[c], bias = affine.bias[c];
      if (scale != nullptr) {
        const float factor = 1.0f + scale[c];
        weight *= factor;
        bias = __builtin_fmaf(bias, factor, shift[c]);
      }
      gain[c] = weight * rstd[g];
      offset[c] = __builtin_fmaf(-mean[g], gain[c], bias);
    }
  }
}

}  // namespace

ONESTEP_CLONES
void norm_forward(const NormShape& shape, const NormAffine& affine, float epsilon, const float* x, float* y, float* mean,
                  float* rstd) {
  const std::int64_t group_channels = shape.channels / shape.groups;
  const std::int64_t sample_size = shape.channels * shape.pixels;
  const float count = static_cast<float>(group_channels * shape.pixels);
  ChannelScratch scratch(shape.channels);
  float* const channel_mean = scratch.mean();
  float* const sum = scratch.sum();
  for (std::int64_t b = 0; b < shape.batch; ++b) {
    const float* const in = x + b * sample_size;
    float* const group_mean = mean + b * shape.groups;
    float* const group_rstd = rstd + b * shape.groups;
    sum_pixels(shape, sum, [in](auto& total, std::int64_t i, std::int64_t) ONESTEP_INLINE { total += at(total, in + i); });
    for (std::int64_t g = 0; g < shape.groups; ++g) {
      float total = 0.0f;
      for (std::int64_t c = g * group_channels; c < (g + 1) * group_channels; ++c) total += sum[c];
      group_mean[g] = total / count;
      for (std::int64_t c = g * group_channels; c < (g + 1) * group_channels; ++c) channel_mean[c] = group_mean[g];
    }
    sum_pixels(shape, sum, [in, channel_mean](auto& total, std::int64_t i, std::int64_t c) ONESTEP_INLINE {
      const auto d = at(total, in + i) - at(total, channel_mean + c);
      total += d * d;
    });
    for (std::int64_t g = 0; g < shape.groups; ++g) {
      float total = 0.0f;
      for (std::int64_t c = g * group_channels; c < (g + 1) * group_channels; ++c) total += sum[c];
      group_rstd[g] = 1.0f / std::sqrt(total / count + epsilon);
    }
    const float* __restrict gain = scratch.gain();
    const float* __restrict offset = scratch.offset();
    channel_affine(shape, affine, b, group_mean, group_rstd, scratch.gain(), scratch.offset());
    for (std::int64_t p = 0; p < shape.pixels; ++p) {
      const float* __restrict row = in + p * shape.channels;
      float* __restrict out = y + b * sample_size + p * shape.channels;
      if (affine.silu) {
        for (std::int64_t c = 0; c < shape.channels; ++c) {
          const float z = __builtin_fmaf(row[c], gain[c], offset[c]);
          out[c] = z * sigmoid(z);
        }
      } else {
        for (std::int64_t c = 0; c < shape.channels; ++c) out[c] = __builtin_fmaf(row[c], gain[c], offset[c]);
      }
    }
  }
}

ONESTEP_CLONES
void norm_backward(const NormShape& shape, const NormAffine& affine, const float* dy, const float* x,
                   const float* mean, const float* rstd, const NormGradients& gradients) {
  const std::int64_t group_channels = shape.channels / shape.groups;
  const std::int64_t sample_size = shape.channels * shape.pixels;
  const float count = static_cast<float>(group_channels * shape.pixels);
  ChannelScratch scratch(shape.channels);
  float* const channel_mean = scratch.mean();
  float* const sum = scratch.sum();                   // of dz
  float* const sum_product = scratch.sum_product();   // of dz * (x - mean)
  for (std::int64_t c = 0; c < shape.channels; ++c) gradients.dweight[c] = gradients.dbias[c] = 0.0f;
  for (std::int64_t b = 0; b < shape.batch; ++b) {
    const float* const in = x + b * sample_size;
    const float* const group_mean = mean + b * shape.groups;
    const float* const group_rstd = rstd + b * shape.groups;
    float* const dz = gradients.dx + b * sample_size;
    for (std::int64_t c = 0; c < shape.channels; ++c) channel_mean[c] = group_mean[c / group_channels];

    // dz, the gradient at act's argument, into dx.
    if (affine.silu) {
      channel_affine(shape, affine, b, group_mean, group_rstd, scratch.gain(), scratch.offset());
      const float* __restrict gain = scratch.gain();
      const float* __restrict offset = scratch.offset();
      for (std::int64_t p = 0; p < shape.pixels; ++p) {
        const float* __restrict row = in + p * shape.channels;
        const float* __restrict upstream = dy + b * sample_size + p * shape.channels;
        float* __restrict out = dz + p * shape.channels;
        for (std::int64_t c = 0; c < shape.channels; ++c) {
          const float z = __builtin_fmaf(row[c], gain[c], offset[c]);
          const float s = sigmoid(z);
          out[c] = upstream[c] * (s * __builtin_fmaf(z, 1.0f - s, 1.0f));
        }
      }
    } else {
      std::copy_n(dy + b * sample_size, sample_size, dz);
    }
    sum_pixels(shape, sum, [dz](auto& total, std::int64_t i, std::int64_t) ONESTEP_INLINE { total += at(total, dz + i); });
    sum_pixels(shape, sum_product, [dz, in, channel_mean](auto& total, std::int64_t i, std::int64_t c) ONESTEP_INLINE {
      total += at(total, dz + i) * (at(total, in + i) - at(total, channel_mean + c));
    });

    // Parameters' gradients; then dx = rstd * (w * dz - m1 - normalised * m2), w = weight * (1 + scale), as
    // fma(dz, a, fma(x - mean, k, o)) with the three factors of every channel in the scratch.
    float* const a = scratch.gain();
    float* const k = scratch.offset();
    float* const o = sum;
    for (std::int64_t g = 0; g < shape.groups; ++g) {
      const float inverse = group_rstd[g];
      float m1 = 0.0f, m2 = 0.0f;
      for (std::int64_t c = g * group_channels; c < (g + 1) * group_channels; ++c) {
        const float product = sum_product[c] * inverse;
        float scale = 1.0f;
        if (affine.scale != nullptr) {
          const std::int64_t at = b * affine.scale_stride + c;
          scale += affine.scale[at];
          gradients.dscale[at] = __builtin_fmaf(affine.weight[c], product, affine.bias[c] * sum[c]);
          gradients.dshift[at] = sum[c];
        }
        gradients.dweight[c] = __builtin_fmaf(scale, product, gradients.dweight[c]);
        gradients.dbias[c] = __builtin_fmaf(scale, sum[c], gradients.dbias[c]);
        const float weight = affine.weight[c] * scale;
        a[c] = weight * inverse;
        m1 = __builtin_fmaf(weight, sum[c], m1);
        m2 = __builtin_fmaf(weight, product, m2);
      }
      for (std::int64_t c = g * group_channels; c < (g + 1) * group_channels; ++c) {
        o[c] = -inverse * (m1 / count);
        k[c] = -inverse * inverse * (m2 / count);
      }
    }
    for (std::int64_t p = 0; p < shape.pixels; ++p) {
      const float* __restrict row = in + p * shape.channels;
      float* __restrict out = dz + p * shape.channels;
      for (std::int64_t c = 0; c < shape.channels; ++c) {
        out[c] = __builtin_fmaf(out[c], a[c], __builtin_fmaf(row[c] - channel_mean[c], k[c], o[c]));
      }
    }
  }
}

}  // namespace onestep
