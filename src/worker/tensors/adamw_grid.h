// One update of a piece of flat buffers as grid kernels: the gradient's norm by optim/clip's blocks, then unscaling, clipping, AdamW, averages and the
// bfloat16 shadow in one pass. Every operation is a correctly rounded one in the order of optim/: equal bits.
#pragma once

#include <algorithm>
#include <cstdint>

#include "worker/tensors/bfloat16.h"
#include "worker/tensors/grid_kernel.h"

namespace onestep {

// Sums of squares in fp64 of blocks of 1,024 values: sixteen lanes, then a tree, as sum_of_squares().
struct BlockSquares {
  using Shared = double;
  struct Thread {};
  static constexpr int kSteps = 4;
  static constexpr std::int32_t kLanes = 1 << kSteps, kBlock = 1024, kBlocksEach = 16, kMaxThreads = kLanes * kBlocksEach;
  static constexpr int kPhases = kSteps + 2;

  const float* values = nullptr;
  double* sums = nullptr;  // [ceil(count / 1024)]
  std::int64_t count = 0;

  [[nodiscard]] Grid grid() const { return {blocks_of(blocks_of(count, kBlock), kBlocksEach), kMaxThreads, kMaxThreads}; }
  template <class Ops>
  constexpr void run(int phase, const Place& place, Thread& /*mine*/, Shared* shared) const {
    const std::int32_t lane = place.thread % kLanes, row = place.thread / kLanes;
    const std::int64_t block = place.block * kBlocksEach + row, begin = block * kBlock;
    if (begin >= count) return;
    double* lanes = shared + row * kLanes;
    if (phase == 0) {
      const std::int64_t end = std::min(count, begin + kBlock);
      double sum = 0;
      for (std::int64_t i = begin + lane; i < end; i += kLanes) {
        const double value = values[i];
        sum += value * value;
      }
      lanes[lane] = sum;
    } else if (phase <= kSteps) {
      const std::int32_t half = tree_half<kSteps>(phase - 1);
      if (lane < half) lanes[lane] += lanes[lane + half];
    } else if (lane == 0) {
      sums[block] = lanes[0];
    }
  }
};

// The blocks of each leaf one after another, as leaf_square_sums(): one thread a leaf.
struct LeafSquares {
  using Shared = double;
  struct Thread {
    double sum = 0;
  };
  static constexpr std::int32_t kEach = 16, kMaxThreads = 1;
  static constexpr int kPhases = 1;

  const double* blocks = nullptr;  // [leaves, blocks_a_leaf]
  double* sums = nullptr;          // [leaves]
  std::int64_t leaves = 0, blocks_a_leaf = 0;

  [[nodiscard]] Grid grid() const { return {leaves, 1, 0}; }
  template <class Ops>
  constexpr void run(int /*phase*/, const Place& place, Thread& mine, Shared* /*shared*/) const {
    const double* leaf = blocks + place.block * blocks_a_leaf;
    // Loads are under way together; the additions stay in order.
    std::int64_t i = 0;
    for (; i + kEach <= blocks_a_leaf; i += kEach) {
      double some[kEach] = {};
      for (int k = 0; k < kEach; ++k) some[k] = leaf[i + k];
      for (int k = 0; k < kEach; ++k) mine.sum += some[k];
    }
    for (; i < blocks_a_leaf; ++i) mine.sum += leaf[i];
    sums[place.block] = mine.sum;
  }
};

// What a norm becomes: [0] the norm, [1] what to scale the gradient by, [2] whether the norm is finite.
struct ClipDecision {
  using Shared = double;
  struct Thread {};
  static constexpr int kPhases = 1;
  static constexpr std::int32_t kMaxThreads = 1;

  double* leaves = nullptr;  // [count], overwritten: neighbours are added level by level, as tree_sum()
  std::int64_t count = 0;
  double max_norm = 0;       // 0: no clipping
  double* decision = nullptr;  // [3]

  [[nodiscard]] Grid grid() const { return {1, 1, 0}; }
  template <class Ops>
  constexpr void run(int /*phase*/, const Place& /*place*/, Thread& /*mine*/, Shared* /*shared*/) const {
    for (std::int64_t n = count; n > 1; n = (n + 1) / 2) {
      for (std::int64_t i = 0; i < n / 2; ++i) leaves[i] = leaves[2 * i] + leaves[2 * i + 1];
      if (n % 2 != 0) leaves[n / 2] = leaves[n - 1];
    }
    const double norm = Ops::sqrt(leaves[0]);
    const double ratio = max_norm / (norm + 1e-6);
    decision[0] = norm;
    decision[1] = max_norm == 0 ? 1.0 : ratio < 1.0 ? ratio : 1.0;
    decision[2] = norm - norm == 0 ? 1.0 : 0.0;  // neither infinite nor NaN
  }
};

constexpr int kMaxAverages = 4;

// The constants of one update in device memory, written by the host before each: those of optim/flat_adamw, but the scale; and 1 - decay of every average.
struct UpdateConstants {
  float keep = 1, rate = 0, new1 = 0, beta2 = 0, new2 = 0, inverse_root = 1, epsilon = 0;
  float average_weight[kMaxAverages] = {};
};

// One pass. A norm that is not finite changes nothing: the host reads the decision and ends the run.
struct AdamwUpdate {
  using Shared = float;
  struct Thread {};
  static constexpr int kPhases = 1;
  static constexpr std::int32_t kMaxThreads = 256, kWidth = 4;

  Pack<float, kWidth>* parameters = nullptr;  // all of these [count / 4] packs
  const Pack<float, kWidth>* gradient = nullptr;
  Pack<float, kWidth>* exp_avg = nullptr;
  Pack<float, kWidth>* exp_avg_sq = nullptr;
  Pack<float, kWidth>* averages[kMaxAverages] = {};
  int num_averages = 0;
  Pack<BFloat16, kWidth>* shadow = nullptr;   // or none
  const UpdateConstants* constants = nullptr;
  const double* decision = nullptr;           // of ClipDecision
  std::int64_t packs = 0;

  [[nodiscard]] Grid grid() const { return {blocks_of(packs, kMaxThreads), kMaxThreads, 0}; }
  template <class Ops>
  constexpr void run(int /*phase*/, const Place& place, Thread& /*mine*/, Shared* /*shared*/) const {
    const std::int64_t at = place.block * kMaxThreads + place.thread;
    if (at >= packs || decision[2] == 0.0) return;
    const UpdateConstants c = *constants;
    const auto scale = static_cast<float>(decision[1]);
    Pack<float, kWidth> p = parameters[at], m = exp_avg[at], v = exp_avg_sq[at];
    const Pack<float, kWidth> raw = gradient[at];
    Pack<BFloat16, kWidth> rounded{};
    for (int i = 0; i < kWidth; ++i) {
      const float g = raw.values[i] * scale;
      m.values[i] = m.values[i] + (g - m.values[i]) * c.new1;
      v.values[i] = v.values[i] * c.beta2 + (g * g) * c.new2;
      const float denominator = Ops::sqrt(v.values[i]) * c.inverse_root + c.epsilon;
      p.values[i] = p.values[i] * c.keep - c.rate * (m.values[i] / denominator);
      rounded.values[i] = from_float<BFloat16>(p.values[i]);
    }
    parameters[at] = p;
    exp_avg[at] = m;
    exp_avg_sq[at] = v;
    if (shadow != nullptr) shadow[at] = rounded;
    for (int k = 0; k < num_averages; ++k) {
      Pack<float, kWidth> average = averages[k][at];
      for (int i = 0; i < kWidth; ++i) average.values[i] += (p.values[i] - average.values[i]) * c.average_weight[k];
      averages[k][at] = average;
    }
  }
};

}  // namespace onestep
