// What the generator makes in one micro-batch: fresh samples by one or several of its steps, and the pairs' images.
#pragma once

#include <cstdint>

#include "worker/dmd/dmd_step.h"
#include "worker/tensors/keyed_random.h"
#include "worker/tensors/torch.h"

namespace onestep {

// Everything random of one micro-batch, keyed by (seed, stream, step, sample index). Borrows its arguments.
class Draws {
 public:
  Draws(const DmdSettings& settings, std::uint32_t step, const MicroBatch& batch, const Denoiser& denoiser)
      : settings_(settings), step_(step), batch_(batch), denoiser_(denoiser) {}

  // z of the fresh samples [num_samples,C,H,W], unit variance, and their condition.
  [[nodiscard]] torch::Tensor z() const;
  [[nodiscard]] Condition condition() const;
  // Which of the generator's steps this iteration trains: the same for every sample.
  [[nodiscard]] std::size_t student_step() const;
  // Noise behind the generator's step `student_step`, [num_samples,C,H,W].
  [[nodiscard]] torch::Tensor backward_noise(std::size_t student_step) const;

  // The next are rows of samples: the fresh ones and, where they join, the pairs' behind them.
  [[nodiscard]] torch::Tensor timestep(RandomStream stream, const NoiseRange& range) const;
  [[nodiscard]] torch::Tensor noise(RandomStream stream) const;
  // x_t of x, with noise of `stream`: drawn inside one kernel on a device.
  [[nodiscard]] torch::Tensor diffused(const NoiseSchedule& schedule, const torch::Tensor& x, RandomStream stream, const torch::Tensor& t) const;
  // Of the real images.
  [[nodiscard]] torch::Tensor real_timestep(RandomStream stream, const NoiseRange& range) const;
  [[nodiscard]] torch::Tensor real_noise(RandomStream stream) const;

  [[nodiscard]] bool pairs_join() const { return settings_.regression_joins_dm && batch_.pair_noise.defined(); }
  // Samples of the whole iteration: what a mean over them divides by.
  [[nodiscard]] std::int64_t num_global_samples() const {
    return settings_.global_batch + (pairs_join() ? settings_.global_pairs : 0);
  }

 private:
  [[nodiscard]] DrawKey key(RandomStream stream) const { return {settings_.seed, stream, step_, settings_.device_step}; }
  [[nodiscard]] torch::Tensor normal(RandomStream stream, std::int64_t first, std::int64_t count) const;
  [[nodiscard]] torch::Tensor level(RandomStream stream, const NoiseRange& range, std::int64_t first, std::int64_t count) const;
  // draw(first, count) of the fresh samples' indices, then of the joined pairs', which are numbered behind all fresh ones.
  template <class Draw>
  [[nodiscard]] torch::Tensor of_samples(Draw draw) const;

  const DmdSettings& settings_;
  std::uint32_t step_;
  const MicroBatch& batch_;
  const Denoiser& denoiser_;
};

// The pairs' own condition: their label is a class, or the number of a prompt whose embedding is there.
Condition condition_of_pairs(const MicroBatch& batch);

struct GeneratedSamples {
  torch::Tensor x;      // [B,C,H,W]: what distribution matching sees: fresh samples, joined pairs behind them
  Condition condition;  // theirs
  torch::Tensor x_ref;  // [P,C,H,W]: the pairs' images; undefined when there are no pairs
};

// One pass for both. A fresh sample of a generator of several steps is what it makes at the iteration's step from what its own
// earlier steps, run without gradients, lead to (DMD2 Sec. 4.4, backward simulation); a pair's is always that of the first step.
GeneratedSamples generate_samples(Denoiser& generator, const DmdSettings& settings, const Draws& draws, const MicroBatch& batch);

}  // namespace onestep
