// GroupNorm with what stands around it in a U-Net, channels last, forward and backward, as grid kernels: statistics in fp32 over values of T.
//
//   s = round_T((x + pre + residual) sum_scale),  y = act((normalised(s) weight + bias) (1 + scale) + shift),  act = SiLU or identity
//
// A block has one sample's slab of whole groups; it passes over it twice, the second time from cache. No atomics: every sum is over a thread's
// pixels in order, then a tree over the rows of threads, then the channels of a group in order.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>

#include "worker/tensors/bfloat16.h"
#include "worker/tensors/grid_kernel.h"
#include "worker/tensors/smooth_functions.h"

namespace onestep {

// How one sample's channels are cut among blocks, and a block's threads over its slab.
struct NormLayout {
  std::int64_t batch = 0, channels = 0, pixels = 0, groups = 0;
  std::int32_t slab = 0;           // channels a block, whole groups and packs
  std::int32_t slabs = 0;          // blocks a sample
  std::int32_t columns = 0;        // packs across a slab
  std::int32_t rows = 0;           // of threads; a power of two
  std::int32_t group_channels = 0;

  // width divides channels; max_threads is a power of two. columns * rows is at most max_threads unless a slab alone has more packs than that.
  static constexpr NormLayout of(std::int64_t batch, std::int64_t channels, std::int64_t pixels, std::int64_t groups, std::int32_t width,
                                 std::int32_t max_threads) {
    constexpr std::int32_t kWanted = 32;  // channels of a slab: a row of 64 bytes in bf16
    NormLayout layout{batch, channels, pixels, groups, 0, 0, 0, 1, static_cast<std::int32_t>(channels / groups)};
    layout.slab = std::lcm(layout.group_channels, width);
    while (layout.slab < kWanted && 2 * layout.slab <= channels) layout.slab *= 2;
    layout.slabs = static_cast<std::int32_t>(blocks_of(channels, layout.slab));
    layout.columns = layout.slab / width;
    while (2 * layout.rows * layout.columns <= max_threads && layout.rows < pixels) layout.rows *= 2;
    return layout;
  }
};

// A thread's place within its block: which pack of channels, which pixels.
template <int W>
struct NormPlace {
  std::int64_t sample, first_group;
  std::int32_t row, column, channel;  // channel: the pack's first one, within the slab
  std::int64_t pack, stride, packs_a_sample;  // of pixel 0: within the sample; from pixel to pixel
  bool active;

  constexpr NormPlace(const NormLayout& layout, const Place& place)
      : sample(place.block / layout.slabs),
        first_group(place.block % layout.slabs * (layout.slab / layout.group_channels)),
        row(place.thread / layout.columns),
        column(place.thread % layout.columns),
        channel(column * W),
        pack(place.block % layout.slabs * layout.columns + column),
        stride(layout.channels / W),
        packs_a_sample(layout.pixels * stride),
        active(row < layout.rows && pack < stride) {}
  // Of the pack's i-th channel.
  [[nodiscard]] constexpr std::int64_t channel_of(int i) const { return pack * W + i; }
};

template <class T, int W>
struct NormInput {
  const Pack<T, W>* x = nullptr;         // [batch, pixels, channels]
  const Pack<T, W>* residual = nullptr;  // as x, or none
  const T* pre = nullptr;                // [channels] or rows of a sample each, or none
  std::int64_t pre_stride = 0;           // between samples: channels or 0
  float sum_scale = 1.0f;

  [[nodiscard]] constexpr Pack<T, W> sum(std::int64_t at, const float* pre_values) const {
    Pack<T, W> s = x[at];
    if (residual == nullptr && pre == nullptr && sum_scale == 1.0f) return s;
    for (int i = 0; i < W; ++i) {
      float value = to_float(s.values[i]);
      if (pre != nullptr) value += pre_values[i];
      if (residual != nullptr) value += to_float(residual[at].values[i]);
      s.values[i] = from_float<T>(value * sum_scale);
    }
    return s;
  }
  constexpr void pre_of(std::int64_t sample, std::int64_t first_channel, float* values) const {
    for (int i = 0; i < W; ++i) values[i] = pre == nullptr ? 0.0f : to_float(pre[sample * pre_stride + first_channel + i]);
  }
  // One value of s; a pivot near the mean keeps the sum of squares exact enough.
  [[nodiscard]] constexpr float at(std::int64_t sample, std::int64_t channel, std::int64_t packs_a_sample) const {
    float pre_values[W] = {};
    const std::int64_t first = channel / W * W;
    pre_of(sample, first, pre_values);
    return to_float(sum(sample * packs_a_sample + channel / W, pre_values).values[channel % W]);
  }
};

template <class T>
struct NormParameters {
  const T* weight = nullptr;       // [channels]
  const T* bias = nullptr;         // [channels]
  const T* scale_shift = nullptr;  // [batch, 2 channels], scale first; or none
  bool silu = true;

  // y's argument of act is s gain + offset.
  template <class Ops>
  constexpr void affine(const NormLayout& layout, std::int64_t sample, std::int64_t channel, float mean, float rstd, float& gain,
                        float& offset) const {
    gain = to_float(weight[channel]) * rstd;
    offset = Ops::fma(-mean, gain, to_float(bias[channel]));
    if (scale_shift == nullptr) return;
    const T* row = scale_shift + sample * 2 * layout.channels;
    const float scale = 1.0f + to_float(row[channel]);
    gain *= scale;
    offset = Ops::fma(offset, scale, to_float(row[layout.channels + channel]));
  }
};

constexpr std::int32_t kNormForwardThreads = 512, kNormBackwardThreads = 256;

template <class T, int W>
struct NormForward {
  using Shared = float;
  struct Thread {};
  static constexpr std::int32_t kMaxThreads = kNormForwardThreads;
  static constexpr int kSteps = 9;  // 2^9 threads
  static constexpr int kPhases = kSteps + 3;

  NormLayout layout;
  NormInput<T, W> input;
  NormParameters<T> parameters;
  float epsilon = 0.0f;
  Pack<T, W>* sum = nullptr;  // s, or none
  Pack<T, W>* y = nullptr;
  float* mean = nullptr;      // [batch, groups]
  float* rstd = nullptr;

  [[nodiscard]] Grid grid() const {
    return {layout.batch * layout.slabs, std::max(layout.columns * layout.rows, 1), std::int64_t{2} * layout.slab * (layout.rows + 1)};
  }

  template <class Ops>
  constexpr void run(int phase, const Place& place, Thread& /*mine*/, Shared* shared) const {
    const NormPlace<W> at(layout, place);
    if (phase == 0) {
      accumulate(at, shared);
    } else if (phase <= kSteps) {
      const std::int32_t half = tree_half<kSteps>(phase - 1);
      if (!at.active || half >= layout.rows || at.row >= half) return;
      float* to = shared + (at.row * layout.slab + at.channel) * 2;
      const float* from = to + half * layout.slab * 2;
      for (int i = 0; i < 2 * W; ++i) to[i] += from[i];
    } else if (phase == kSteps + 1) {
      finish<Ops>(at, place, shared);
    } else if (at.active) {
      apply<Ops>(at, shared);
    }
  }

 private:
  [[nodiscard]] constexpr float pivot(const NormPlace<W>& at, std::int64_t group) const {
    return input.at(at.sample, group * layout.group_channels, at.packs_a_sample);
  }
  [[nodiscard]] constexpr float* statistics(Shared* shared) const { return shared + layout.rows * layout.slab * 2; }

  // Sums of s - pivot and of its square, a channel; s itself is written on the way.
  constexpr void accumulate(const NormPlace<W>& at, Shared* shared) const {
    if (!at.active) return;
    float pivots[W] = {}, pre[W] = {}, first[W] = {}, second[W] = {};
    for (int i = 0; i < W; ++i) pivots[i] = pivot(at, at.channel_of(i) / layout.group_channels);
    input.pre_of(at.sample, at.pack * W, pre);
    const std::int64_t begin = at.sample * at.packs_a_sample + at.pack;
    for (std::int64_t pixel = at.row; pixel < layout.pixels; pixel += layout.rows) {
      const Pack<T, W> s = input.sum(begin + pixel * at.stride, pre);
      if (sum != nullptr) sum[begin + pixel * at.stride] = s;
      for (int i = 0; i < W; ++i) {
        const float d = to_float(s.values[i]) - pivots[i];
        first[i] += d;
        second[i] += d * d;
      }
    }
    float* to = shared + (at.row * layout.slab + at.channel) * 2;
    for (int i = 0; i < W; ++i) {
      to[2 * i] = first[i];
      to[2 * i + 1] = second[i];
    }
  }

  template <class Ops>
  constexpr void finish(const NormPlace<W>& at, const Place& place, Shared* shared) const {
    const auto count = static_cast<float>(layout.group_channels * layout.pixels);
    for (std::int32_t g = place.thread; g < layout.slab / layout.group_channels; g += place.threads) {
      const std::int64_t group = at.first_group + g;
      if (group >= layout.groups) return;
      float first = 0.0f, second = 0.0f;
      for (std::int32_t c = g * layout.group_channels; c < (g + 1) * layout.group_channels; ++c) {
        first += shared[2 * c];
        second += shared[2 * c + 1];
      }
      const float shift = first / count;
      const float variance = second / count - shift * shift;
      const float inverse = 1.0f / Ops::sqrt((variance > 0.0f ? variance : 0.0f) + epsilon);
      const float centre = pivot(at, group) + shift;
      statistics(shared)[2 * g] = mean[at.sample * layout.groups + group] = centre;
      statistics(shared)[2 * g + 1] = rstd[at.sample * layout.groups + group] = inverse;
    }
  }

  template <class Ops>
  constexpr void apply(const NormPlace<W>& at, Shared* shared) const {
    float gain[W] = {}, offset[W] = {}, pre[W] = {};
    for (int i = 0; i < W; ++i) {
      const float* both = statistics(shared) + (at.channel + i) / layout.group_channels * 2;
      parameters.template affine<Ops>(layout, at.sample, at.channel_of(i), both[0], both[1], gain[i], offset[i]);
    }
    input.pre_of(at.sample, at.pack * W, pre);
    const std::int64_t begin = at.sample * at.packs_a_sample + at.pack;
    for (std::int64_t pixel = at.row; pixel < layout.pixels; pixel += layout.rows) {
      const std::int64_t here = begin + pixel * at.stride;
      Pack<T, W> s = sum != nullptr ? sum[here] : input.sum(here, pre);
      for (int i = 0; i < W; ++i) {
        const float z = Ops::fma(to_float(s.values[i]), gain[i], offset[i]);
        s.values[i] = from_float<T>(parameters.silu ? z * sigmoid<Ops>(z) : z);
      }
      y[here] = s;
    }
  }
};

// Gradients of a loss by y (dy) and by s (dsum) -> by x and residual (both dx), pre, weight, bias, scale and shift. `input` gives the s of the
// forward pass: x, pre and residual again, or s itself as x. What several samples share comes out a sample each: a ColumnSum adds it up.
template <class T, int W>
struct NormBackward {
  using Shared = float;
  struct Thread {};
  static constexpr std::int32_t kMaxThreads = kNormBackwardThreads;
  static constexpr int kSteps = 8;  // 2^8 threads
  static constexpr int kPhases = kSteps + 3;
  static constexpr int kSums = 4;   // of dz, dz (s - mean), s - mean, dsum

  NormLayout layout;
  NormInput<T, W> input;
  NormParameters<T> parameters;
  float dx_scale = 1.0f;             // the forward pass's sum_scale
  const float* mean = nullptr;       // [batch, groups]
  const float* rstd = nullptr;
  const Pack<T, W>* dy = nullptr;
  const Pack<T, W>* dsum = nullptr;  // or none
  Pack<T, W>* dx = nullptr;
  float* per_sample = nullptr;       // [batch, 3 channels]: of weight, of bias, of pre
  T* dscale_shift = nullptr;         // [batch, 2 channels], with scale_shift only

  [[nodiscard]] Grid grid() const {
    return {layout.batch * layout.slabs, std::max(layout.columns * layout.rows, 1),
            std::int64_t{kSums} * layout.slab * layout.rows + std::int64_t{2} * layout.slab};
  }

  template <class Ops>
  constexpr void run(int phase, const Place& place, Thread& /*mine*/, Shared* shared) const {
    const NormPlace<W> at(layout, place);
    if (phase == 0) {
      if (at.active) accumulate<Ops>(at, shared);
    } else if (phase <= kSteps) {
      const std::int32_t half = tree_half<kSteps>(phase - 1);
      if (!at.active || half >= layout.rows || at.row >= half) return;
      float* to = shared + (at.row * layout.slab + at.channel) * kSums;
      const float* from = to + half * layout.slab * kSums;
      for (int i = 0; i < kSums * W; ++i) to[i] += from[i];
    } else if (phase == kSteps + 1) {
      finish<Ops>(at, place, shared);
    } else if (at.active) {
      apply<Ops>(at, shared);
    }
  }

 private:
  [[nodiscard]] constexpr float* factors(Shared* shared) const { return shared + layout.rows * layout.slab * kSums; }

  struct Channels {
    float gain[W] = {}, offset[W] = {}, mean[W] = {}, pre[W] = {};
  };
  template <class Ops>
  [[nodiscard]] constexpr Channels channels_of(const NormPlace<W>& at) const {
    Channels channels;
    for (int i = 0; i < W; ++i) {
      const std::int64_t group = at.sample * layout.groups + at.channel_of(i) / layout.group_channels;
      channels.mean[i] = mean[group];
      parameters.template affine<Ops>(layout, at.sample, at.channel_of(i), mean[group], rstd[group], channels.gain[i], channels.offset[i]);
    }
    input.pre_of(at.sample, at.pack * W, channels.pre);
    return channels;
  }
  template <class Ops>
  [[nodiscard]] constexpr float dz_of(float upstream, float s, float gain, float offset) const {
    return parameters.silu ? upstream * silu_slope<Ops>(Ops::fma(s, gain, offset)) : upstream;
  }

  template <class Ops>
  constexpr void accumulate(const NormPlace<W>& at, Shared* shared) const {
    const Channels channels = channels_of<Ops>(at);
    float sums[kSums * W] = {};
    const std::int64_t begin = at.sample * at.packs_a_sample + at.pack;
    for (std::int64_t pixel = at.row; pixel < layout.pixels; pixel += layout.rows) {
      const std::int64_t here = begin + pixel * at.stride;
      const Pack<T, W> s = input.sum(here, channels.pre);
      const Pack<T, W> upstream = dy[here];
      for (int i = 0; i < W; ++i) {
        const float value = to_float(s.values[i]), centred = value - channels.mean[i];
        const float dz = dz_of<Ops>(to_float(upstream.values[i]), value, channels.gain[i], channels.offset[i]);
        sums[kSums * i] += dz;
        sums[kSums * i + 1] += dz * centred;
        sums[kSums * i + 2] += centred;
      }
      if (dsum == nullptr) continue;
      const Pack<T, W> more = dsum[here];
      for (int i = 0; i < W; ++i) sums[kSums * i + 3] += to_float(more.values[i]);
    }
    float* to = shared + (at.row * layout.slab + at.channel) * kSums;
    for (int i = 0; i < kSums * W; ++i) to[i] = sums[i];
  }

  // dx = (dz a + (s - mean) k + o + dsum) dx_scale; k and o are a group's.
  template <class Ops>
  constexpr void finish(const NormPlace<W>& at, const Place& place, Shared* shared) const {
    const auto count = static_cast<float>(layout.group_channels * layout.pixels);
    for (std::int32_t g = place.thread; g < layout.slab / layout.group_channels; g += place.threads) {
      const std::int64_t group = at.first_group + g;
      if (group >= layout.groups) return;
      const float inverse = rstd[at.sample * layout.groups + group];
      float m1 = 0.0f, m2 = 0.0f;
      for (std::int32_t i = 0; i < layout.group_channels; ++i) {
        const float* sums = shared + (g * layout.group_channels + i) * kSums;
        const float weight = scaled_weight(at.sample, group * layout.group_channels + i);
        m1 = Ops::fma(weight, sums[0], m1);
        m2 = Ops::fma(weight, sums[1] * inverse, m2);
      }
      const float k = -inverse * inverse * (m2 / count), o = -inverse * (m1 / count);
      factors(shared)[2 * g] = k;
      factors(shared)[2 * g + 1] = o;
      for (std::int32_t i = 0; i < layout.group_channels; ++i) {
        write_sums<Ops>(at.sample, group * layout.group_channels + i, shared + (g * layout.group_channels + i) * kSums, inverse, k, o);
      }
    }
  }

  [[nodiscard]] constexpr float scale_of(std::int64_t sample, std::int64_t channel) const {
    const T* row = parameters.scale_shift;
    return row == nullptr ? 1.0f : 1.0f + to_float(row[sample * 2 * layout.channels + channel]);
  }
  [[nodiscard]] constexpr float scaled_weight(std::int64_t sample, std::int64_t channel) const {
    return to_float(parameters.weight[channel]) * scale_of(sample, channel);
  }

  template <class Ops>
  constexpr void write_sums(std::int64_t sample, std::int64_t channel, const float* sums, float inverse, float k, float o) const {
    const float product = sums[1] * inverse, scale = scale_of(sample, channel);
    float* row = per_sample + sample * 3 * layout.channels + channel;
    row[0] = scale * product;
    row[layout.channels] = scale * sums[0];
    const float a = scaled_weight(sample, channel) * inverse;
    const float whole = Ops::fma(sums[0], a, Ops::fma(sums[2], k, o * static_cast<float>(layout.pixels))) + sums[3];
    row[2 * layout.channels] = whole * dx_scale;
    if (dscale_shift == nullptr) return;
    T* both = dscale_shift + sample * 2 * layout.channels + channel;
    both[0] = from_float<T>(Ops::fma(to_float(parameters.weight[channel]), product, to_float(parameters.bias[channel]) * sums[0]));
    both[layout.channels] = from_float<T>(sums[0]);
  }

  template <class Ops>
  constexpr void apply(const NormPlace<W>& at, Shared* shared) const {
    const Channels channels = channels_of<Ops>(at);
    float a[W] = {}, k[W] = {}, o[W] = {};
    for (int i = 0; i < W; ++i) {
      const std::int64_t group = at.channel_of(i) / layout.group_channels;
      a[i] = scaled_weight(at.sample, at.channel_of(i)) * rstd[at.sample * layout.groups + group];
      k[i] = factors(shared)[2 * (group - at.first_group)];
      o[i] = factors(shared)[2 * (group - at.first_group) + 1];
    }
    const std::int64_t begin = at.sample * at.packs_a_sample + at.pack;
    for (std::int64_t pixel = at.row; pixel < layout.pixels; pixel += layout.rows) {
      const std::int64_t here = begin + pixel * at.stride;
      const Pack<T, W> s = input.sum(here, channels.pre);
      Pack<T, W> result = dy[here];
      for (int i = 0; i < W; ++i) {
        const float value = to_float(s.values[i]);
        const float dz = dz_of<Ops>(to_float(result.values[i]), value, channels.gain[i], channels.offset[i]);
        float whole = Ops::fma(dz, a[i], Ops::fma(value - channels.mean[i], k[i], o[i]));
        if (dsum != nullptr) whole += to_float(dsum[here].values[i]);
        result.values[i] = from_float<T>(whole * dx_scale);
      }
      dx[here] = result;
    }
  }
};

}  // namespace onestep
