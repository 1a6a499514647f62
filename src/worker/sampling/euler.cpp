// Euler's method over sigma: Heun's (heun.cpp) without the correction.
#include "worker/sampling/sigma_steps.h"

namespace onestep {
namespace {

torch::Tensor run_euler(const SamplerRun& run) {
  const auto sigmas = sigma_steps(run.spec, sigma_schedule(run.spec, run.denoiser.schedule()));
  NoisyState state{run.noise.to(torch::kFloat64) * sigmas.front(), sigmas.front()};
  for (std::size_t i = 0; i + 1 < sigmas.size(); ++i) {
    const auto [x, sigma] = churned(run, state, static_cast<std::int64_t>(i));
    state = {x + (sigmas[i + 1] - sigma) * slope(run, x, sigma), sigmas[i + 1]};
  }
  return state.x.to(torch::kFloat32);
}

}  // namespace

SamplerMethod euler_sampler() {
  return {check_sigma_steps, run_euler, [](const SamplerSpec& spec) { return spec.steps; }};
}

}  // namespace onestep
