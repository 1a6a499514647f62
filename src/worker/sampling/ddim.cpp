// DDIM (Song et al. 2021, Eq. 12 with sigma = 0) over discrete steps, as diffusers spaces them.
#include <cmath>

#include "worker/sampling/discrete_steps.h"

namespace onestep {
namespace {

torch::Tensor run_ddim(const SamplerRun& run) {
  const DiscreteSteps steps(run);
  auto x = run.noise.to(torch::kFloat64);
  for (const std::int64_t t : steps.timesteps()) {
    const auto x0 = steps.denoised(x, t);
    const auto epsilon = steps.noise_in(x, x0, t);
    const double abar_next = steps.alpha_bar(t - steps.stride());
    x = std::sqrt(abar_next) * x0 + std::sqrt(1 - abar_next) * epsilon;
  }
  return x.to(torch::kFloat32);
}

}  // namespace

SamplerMethod ddim_sampler() {
  return {check_discrete_steps, run_ddim, [](const SamplerSpec& spec) { return spec.steps; }};
}

}  // namespace onestep
