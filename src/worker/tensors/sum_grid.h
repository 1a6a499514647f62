// Sums over rows, and residual sums, as grid kernels: the gradients of biases, and of what all samples share.
#pragma once

#include <algorithm>
#include <cstdint>

#include "worker/tensors/bfloat16.h"
#include "worker/tensors/grid_kernel.h"

namespace onestep {

// in [rows, columns] of T -> out [chunks, columns] of Out: each block adds up the rows of one chunk for 32 W columns, a thread every eighth row in
// order, then a tree over the eight. With `scaled`, scale * in is written there too. Two of them, the second with one chunk, sum everything.
template <class T, int W, class Out>
struct ColumnSum {
  using Shared = float;
  struct Thread {};
  static constexpr int kSteps = 3;
  static constexpr std::int32_t kLanes = 32, kRows = 1 << kSteps, kMaxThreads = kLanes * kRows;
  static constexpr int kPhases = kSteps + 2;

  const Pack<T, W>* in = nullptr;
  Pack<T, W>* scaled = nullptr;  // as in, or none
  Pack<Out, W>* out = nullptr;
  std::int64_t rows = 0, packs = 0;  // packs: columns / W
  std::int64_t chunks = 1;
  float scale = 1.0f;

  [[nodiscard]] Grid grid() const { return {chunks * blocks_of(packs, kLanes), kMaxThreads, kMaxThreads * W}; }

  template <class Ops>
  constexpr void run(int phase, const Place& place, Thread& /*mine*/, Shared* shared) const {
    const std::int32_t lane = place.thread % kLanes, row = place.thread / kLanes;
    const std::int64_t slabs = blocks_of(packs, kLanes);
    const std::int64_t pack = place.block % slabs * kLanes + lane, chunk = place.block / slabs;
    if (pack >= packs) return;
    float* mine = shared + (row * kLanes + lane) * W;
    if (phase == 0) {
      const std::int64_t each = blocks_of(rows, chunks);
      const std::int64_t end = std::min(rows, (chunk + 1) * each);
      float sums[W] = {};
      for (std::int64_t r = chunk * each + row; r < end; r += kRows) {
        Pack<T, W> value = in[r * packs + pack];
        for (int i = 0; i < W; ++i) {
          const float product = to_float(value.values[i]) * scale;
          sums[i] += product;
          value.values[i] = from_float<T>(product);
        }
        if (scaled != nullptr) scaled[r * packs + pack] = value;
      }
      for (int i = 0; i < W; ++i) mine[i] = sums[i];
    } else if (phase <= kSteps) {
      const std::int32_t half = tree_half<kSteps>(phase - 1);
      if (row >= half) return;
      for (int i = 0; i < W; ++i) mine[i] += mine[half * kLanes * W + i];
    } else if (row == 0) {
      Pack<Out, W> value{};
      for (int i = 0; i < W; ++i) value.values[i] = from_float<Out>(mine[i]);
      out[chunk * packs + pack] = value;
    }
  }
};

// into += from, [count]: the device's add_floats().
struct AddFloats {
  using Shared = float;
  struct Thread {};
  static constexpr int kPhases = 1;
  static constexpr std::int32_t kMaxThreads = 256;

  float* into = nullptr;
  const float* from = nullptr;
  std::int64_t count = 0;

  [[nodiscard]] Grid grid() const { return {blocks_of(count, kMaxThreads), kMaxThreads, 0}; }

  template <class Ops>
  constexpr void run(int /*phase*/, const Place& place, Thread& /*mine*/, Shared* /*shared*/) const {
    const std::int64_t at = place.block * kMaxThreads + place.thread;
    if (at < count) into[at] += from[at];
  }
};

// y = (a + b + bias) scale, rounded once; a, b, y [rows, columns] of T, bias [columns] or none.
template <class T, int W>
struct ResidualSum {
  using Shared = float;
  struct Thread {};
  static constexpr int kPhases = 1;
  static constexpr std::int32_t kMaxThreads = 256;

  const Pack<T, W>* a = nullptr;
  const Pack<T, W>* b = nullptr;
  const Pack<T, W>* bias = nullptr;
  Pack<T, W>* y = nullptr;
  std::int64_t rows = 0, packs = 0;
  float scale = 1.0f;

  [[nodiscard]] Grid grid() const { return {blocks_of(rows * packs, kMaxThreads), kMaxThreads, 0}; }

  template <class Ops>
  constexpr void run(int /*phase*/, const Place& place, Thread& /*mine*/, Shared* /*shared*/) const {
    const std::int64_t at = place.block * kMaxThreads + place.thread;
    if (at >= rows * packs) return;
    Pack<T, W> value = a[at];
    const Pack<T, W> other = b[at];
    const Pack<T, W> more = bias != nullptr ? bias[at % packs] : Pack<T, W>{};
    for (int i = 0; i < W; ++i) {
      value.values[i] = from_float<T>((to_float(value.values[i]) + to_float(other.values[i]) + to_float(more.values[i])) * scale);
    }
    y[at] = value;
  }
};

}  // namespace onestep
