// What the samplers over discrete steps share: which steps, alpha-bar at and before them, the noise of a state.
#pragma once

#include <cstdint>
#include <vector>

#include "worker/diffusion/noise_schedule.h"
#include "worker/sampling/sampler_method.h"
#include "worker/tensors/torch.h"

namespace onestep {

// Errors: kConfig unless the network's t is a discrete step and the steps fit its table.
void check_discrete_steps(const SamplerSpec& spec, const NoiseSchedule& schedule);

// N steps of a table of T, spaced "leading": i (T / N) + steps_offset for i = N-1 ... 0; behind check_discrete_steps().
class DiscreteSteps {
 public:
  explicit DiscreteSteps(const SamplerRun& run);
  [[nodiscard]] const std::vector<std::int64_t>& timesteps() const { return timesteps_; }  // descending
  [[nodiscard]] std::int64_t stride() const { return stride_; }                            // T / N
  // alpha-bar at t; below the first step: 1 with set_alpha_to_one, else alpha-bar of step 0.
  [[nodiscard]] double alpha_bar(std::int64_t t) const;
  // The network's x0 for x [B,C,H,W] fp64 at step t, fp64.
  [[nodiscard]] torch::Tensor denoised(const torch::Tensor& x, std::int64_t t) const;
  // The noise that x0 leaves in x at step t: (x - sqrt(abar) x0) / sqrt(1 - abar), fp64.
  [[nodiscard]] torch::Tensor noise_in(const torch::Tensor& x, const torch::Tensor& x0, std::int64_t t) const;

 private:
  const SamplerRun& run_;
  const DiscreteSchedule& schedule_;
  std::int64_t stride_ = 0;
  std::vector<std::int64_t> timesteps_;
};

}  // namespace onestep
