// Resampling by two with a separable filter, channels last, as a grid kernel: a thread a pack of an output pixel.
#pragma once

#include <cstdint>

#include "worker/tensors/bfloat16.h"
#include "worker/tensors/grid_kernel.h"

namespace onestep {

// Up: y[o] = gain sum_i x[i] f[o - 2 i + pad], of size 2 (n - 1) - 2 pad + taps; down: y[o] = gain sum_k f[k] x[2 o - pad + k], of size
// (n + 2 pad - taps) / 2 + 1; in both directions of the picture, nothing beyond its edges. Each is the other's transpose.
template <class T, int W>
struct Resample {
  using Shared = float;
  struct Thread {};
  static constexpr int kPhases = 1;
  static constexpr std::int32_t kMaxThreads = 256;

  const Pack<T, W>* x = nullptr;  // [batch, height, width, packs]
  Pack<T, W>* y = nullptr;        // [batch, size_of(height), size_of(width), packs]
  std::int64_t batch = 0, height = 0, width = 0, packs = 0;  // of x
  bool up = false;
  std::int32_t taps = 2, pad = 0;  // 2: (1, 1); 4: (1, 3, 3, 1)
  float gain = 1.0f;

  [[nodiscard]] constexpr std::int64_t size_of(std::int64_t n) const { return up ? 2 * (n - 1) - 2 * pad + taps : (n + 2 * pad - taps) / 2 + 1; }
  [[nodiscard]] Grid grid() const {
    return {blocks_of(batch * size_of(height) * size_of(width) * packs, kMaxThreads), kMaxThreads, 0};
  }

  template <class Ops>
  constexpr void run(int /*phase*/, const Place& place, Thread& /*mine*/, Shared* /*shared*/) const {
    const std::int64_t out_height = size_of(height), out_width = size_of(width);
    std::int64_t rest = place.block * kMaxThreads + place.thread;
    if (rest >= batch * out_height * out_width * packs) return;
    Pack<T, W>& out = y[rest];
    const std::int64_t pack = rest % packs;
    rest /= packs;
    const std::int64_t column = rest % out_width;
    rest /= out_width;
    const std::int64_t row = rest % out_height, sample = rest / out_height;
    const Span rows = span_of(row, height), columns = span_of(column, width);
    float sums[W] = {};
    for (std::int64_t i = rows.first; i <= rows.last; ++i) {
      for (std::int64_t j = columns.first; j <= columns.last; ++j) {
        const float weight = tap(row, i) * tap(column, j);
        const Pack<T, W> value = x[((sample * height + i) * width + j) * packs + pack];
        for (int c = 0; c < W; ++c) sums[c] = Ops::fma(weight, to_float(value.values[c]), sums[c]);
      }
    }
    Pack<T, W> value{};
    for (int c = 0; c < W; ++c) value.values[c] = from_float<T>(sums[c] * gain);
    out = value;
  }

 private:
  struct Span {
    std::int64_t first, last;
  };
  // Inputs that output o is made of.
  [[nodiscard]] constexpr Span span_of(std::int64_t o, std::int64_t size) const {
    std::int64_t first = 2 * o - pad, last = first + taps - 1;
    if (up) {
      // 0 <= o - 2 i + pad < taps
      last = (o + pad) / 2;
      first = (o + pad - taps + 2) / 2;  // rounded up; below 0 it is cut off anyway
    }
    return {first < 0 ? 0 : first, last >= size ? size - 1 : last};
  }
  [[nodiscard]] constexpr float tap(std::int64_t o, std::int64_t i) const {
    const std::int64_t k = up ? o - 2 * i + pad : i - 2 * o + pad;
    return taps == 4 && (k == 1 || k == 2) ? 3.0f : 1.0f;
  }
};

}  // namespace onestep
