// What the samplers over sigma share: the levels, the slope, the noise that is put back (Karras et al. 2022, Algorithm 2).
#pragma once

#include <cstdint>
#include <vector>

#include "worker/diffusion/noise_schedule.h"
#include "worker/sampling/sampler_method.h"
#include "worker/tensors/torch.h"

namespace onestep {

// The schedule of a network whose t is sigma. Errors: kConfig, naming the sampler.
const EdmSchedule& sigma_schedule(const SamplerSpec& spec, const NoiseSchedule& schedule);

// Errors: kConfig unless steps >= 2, rho > 0, 0 < sigma_min < sigma_max within the network's levels, and churn makes sense.
void check_sigma_steps(const SamplerSpec& spec, const NoiseSchedule& schedule);

// sigma_i = (sigma_max^(1/rho) + i/(N-1) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho for i < N, moved to the network's next
// level where it has levels; then 0: N + 1 values, fp64 (Eq. 5).
std::vector<double> sigma_steps(const SamplerSpec& spec, const EdmSchedule& schedule);

// dx/dsigma = (x - D(x; sigma)) / sigma at one sigma for the whole batch; x and the result fp64, the network sees fp32.
torch::Tensor slope(const SamplerRun& run, const torch::Tensor& x, double sigma);

struct NoisyState {
  torch::Tensor x;  // fp64
  double sigma = 0;
};
// Algorithm 2, lines 4 to 6: between S_min and S_max, sigma grows by the factor 1 + min(S_churn / N, sqrt(2) - 1), with keyed
// noise of deviation S_noise to match. `step`: number of the step, part of the key.
NoisyState churned(const SamplerRun& run, const NoisyState& state, std::int64_t step);

}  // namespace onestep
