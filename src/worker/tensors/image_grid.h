// What happens to pictures between the networks, as grid kernels: preconditioning (Karras et al. 2022, Eq. 7), diffusion with its noise drawn inside,
// keyed draws, the distribution matching gradient (DMD, Alg. 2).
#pragma once

#include <cstdint>

#include "common/philox.h"
#include "worker/tensors/bfloat16.h"
#include "worker/tensors/grid_kernel.h"
#include "worker/tensors/keyed_normal.h"

namespace onestep {

constexpr std::int32_t kImageThreads = 256;

// y = round_T(factor[b] x); x fp32 [batch, elements].
template <class T>
struct ScaleSamples {
  using Shared = float;
  struct Thread {};
  static constexpr int kPhases = 1;
  static constexpr std::int32_t kMaxThreads = kImageThreads;

  const float* x = nullptr;
  const float* factor = nullptr;  // [batch]
  T* y = nullptr;
  std::int64_t batch = 0, elements = 0;

  [[nodiscard]] Grid grid() const { return {blocks_of(batch * elements, kImageThreads), kImageThreads, 0}; }
  template <class Ops>
  constexpr void run(int /*phase*/, const Place& place, Thread& /*mine*/, Shared* /*shared*/) const {
    const std::int64_t at = place.block * kImageThreads + place.thread;
    if (at < batch * elements) y[at] = from_float<T>(factor[at / elements] * x[at]);
  }
};

// D = c_skip[b] x + c_out[b] F; x, D fp32, F of T, all [batch, elements] in one order of memory.
template <class T>
struct CombineSamples {
  using Shared = float;
  struct Thread {};
  static constexpr int kPhases = 1;
  static constexpr std::int32_t kMaxThreads = kImageThreads;

  const float* x = nullptr;
  const T* f = nullptr;
  const float* c_skip = nullptr;  // [batch]
  const float* c_out = nullptr;   // [batch]
  float* d = nullptr;
  std::int64_t batch = 0, elements = 0;

  [[nodiscard]] Grid grid() const { return {blocks_of(batch * elements, kImageThreads), kImageThreads, 0}; }
  template <class Ops>
  constexpr void run(int /*phase*/, const Place& place, Thread& /*mine*/, Shared* /*shared*/) const {
    const std::int64_t at = place.block * kImageThreads + place.thread;
    if (at >= batch * elements) return;
    const std::int64_t sample = at / elements;
    d[at] = Ops::fma(c_out[sample], to_float(f[at]), c_skip[sample] * x[at]);
  }
};

// Where draws sit; the step lies in device memory, so that a captured graph draws anew every time.
struct GridDraw {
  std::uint64_t seed = 0;
  RandomStream stream = RandomStream::kInit;
  const std::int64_t* step = nullptr;
  std::uint64_t first_sample = 0;
};

// out[b] = sigma[b] normal + alpha[b] x[b]; without x the normals alone. Element e of a sample in the order [channels, pixels] has the same bits as
// fill_normal() gives; with channels_last it lies at pixel * channels + channel. A thread a block of four draws.
struct Diffuse {
  using Shared = float;
  struct Thread {};
  static constexpr int kPhases = 1;
  static constexpr std::int32_t kMaxThreads = kImageThreads;

  GridDraw draw;
  const float* x = nullptr;
  const float* alpha = nullptr;  // [batch], with x only
  const float* sigma = nullptr;
  float* out = nullptr;
  std::int64_t batch = 0, channels = 0, pixels = 0;
  bool channels_last = false;

  [[nodiscard]] Grid grid() const { return {blocks_of(batch * blocks_of(channels * pixels, 4), kImageThreads), kImageThreads, 0}; }
  template <class Ops>
  constexpr void run(int /*phase*/, const Place& place, Thread& /*mine*/, Shared* /*shared*/) const {
    const std::int64_t elements = channels * pixels, draws = blocks_of(elements, 4);
    const std::int64_t at = place.block * kImageThreads + place.thread;
    if (at >= batch * draws) return;
    const std::int64_t sample = at / draws, block = at % draws;
    const auto four = keyed_normal_block<Ops>(draw.seed, draw.stream, static_cast<std::uint32_t>(*draw.step),
                                              draw.first_sample + static_cast<std::uint64_t>(sample), static_cast<std::uint32_t>(block));
    for (std::int64_t lane = 0; lane < 4 && 4 * block + lane < elements; ++lane) {
      const std::int64_t e = 4 * block + lane;
      const std::int64_t here = sample * elements + (channels_last ? e % pixels * channels + e / pixels : e);
      const float epsilon = four[static_cast<std::size_t>(lane)];
      // Two roundings of products, one of the sum, as by separate operations.
      out[here] = x == nullptr ? epsilon : alpha[sample] * x[here] + sigma[sample] * epsilon;
    }
  }
};

// uniform[b] in (0, 1), or integer[b] in [0, limit); as keyed_uniform() and keyed_integer().
struct DrawNumbers {
  using Shared = float;
  struct Thread {};
  static constexpr int kPhases = 1;
  static constexpr std::int32_t kMaxThreads = kImageThreads;

  GridDraw draw;
  std::int64_t batch = 0;
  float* uniform = nullptr;
  std::int64_t* integer = nullptr;
  std::uint64_t limit = 0;

  [[nodiscard]] Grid grid() const { return {blocks_of(batch, kImageThreads), kImageThreads, 0}; }
  template <class Ops>
  constexpr void run(int /*phase*/, const Place& place, Thread& /*mine*/, Shared* /*shared*/) const {
    const std::int64_t at = place.block * kImageThreads + place.thread;
    if (at >= batch) return;
    const auto words = keyed_words(draw.seed, draw.stream, static_cast<std::uint32_t>(*draw.step),
                                   draw.first_sample + static_cast<std::uint64_t>(at), 0);
    if (uniform != nullptr) uniform[at] = unit_uniform(words[0]);
    if (integer != nullptr) integer[at] = static_cast<std::int64_t>((std::uint64_t{words[0]} * limit) >> 32);
  }
};

// DMD Alg. 2, a block a sample: gradient = (mu_fake - mu_real) / mean |x - mu_real|, or 0 where that mean is 0. `figures` [batch, 3]: the sums of
// gradient^2 / 2 and of |gradient|, and whether the mean was 0.
struct DmGradient {
  using Shared = float;
  struct Thread {
    float square = 0.0f, absolute = 0.0f;
  };
  static constexpr std::int32_t kMaxThreads = kImageThreads;
  static constexpr int kSteps = 8;  // 2^8 threads
  static constexpr int kPhases = 2 * kSteps + 3;

  const float* x = nullptr;  // these four [batch, elements]
  const float* mu_real = nullptr;
  const float* mu_fake = nullptr;
  float* gradient = nullptr;
  float* figures = nullptr;
  std::int64_t batch = 0, elements = 0;

  [[nodiscard]] Grid grid() const { return {batch, kImageThreads, 3 * kImageThreads}; }
  template <class Ops>
  constexpr void run(int phase, const Place& place, Thread& mine, Shared* shared) const {
    const std::int64_t begin = place.block * elements;
    float* distances = shared;  // the three arrays: the first one's sum is still read when the others are written
    float* squares = shared + kImageThreads;
    float* absolutes = squares + kImageThreads;
    if (phase == 0) {
      float sum = 0.0f;
      for (std::int64_t i = place.thread; i < elements; i += kImageThreads) {
        const float d = x[begin + i] - mu_real[begin + i];
        sum += d < 0.0f ? -d : d;
      }
      distances[place.thread] = sum;
    } else if (phase <= kSteps) {
      add_half(phase - 1, place.thread, distances);
    } else if (phase == kSteps + 1) {
      const float denominator = distances[0] / static_cast<float>(elements);
      for (std::int64_t i = place.thread; i < elements; i += kImageThreads) {
        const float g = denominator == 0.0f ? 0.0f : (mu_fake[begin + i] - mu_real[begin + i]) / denominator;
        gradient[begin + i] = g;
        mine.square += 0.5f * g * g;
        mine.absolute += g < 0.0f ? -g : g;
      }
      squares[place.thread] = mine.square;
      absolutes[place.thread] = mine.absolute;
    } else if (phase <= 2 * kSteps + 1) {
      add_half(phase - kSteps - 2, place.thread, squares);
      add_half(phase - kSteps - 2, place.thread, absolutes);
    } else if (place.thread == 0) {
      figures[place.block * 3] = squares[0];
      figures[place.block * 3 + 1] = absolutes[0];
      figures[place.block * 3 + 2] = distances[0] == 0.0f ? 1.0f : 0.0f;
    }
  }

 private:
  static constexpr void add_half(int step, std::int32_t thread, float* values) {
    const std::int32_t half = tree_half<kSteps>(step);
    if (thread < half) values[thread] += values[thread + half];
  }
};

}  // namespace onestep
