// Heun's method over sigma (Karras et al. 2022): Algorithm 1; with S_churn > 0, Algorithm 2.
#include "worker/sampling/sigma_steps.h"

namespace onestep {
namespace {

torch::Tensor run_heun(const SamplerRun& run) {
  const auto sigmas = sigma_steps(run.spec, sigma_schedule(run.spec, run.denoiser.schedule()));
  NoisyState state{run.noise.to(torch::kFloat64) * sigmas.front(), sigmas.front()};
  for (std::size_t i = 0; i + 1 < sigmas.size(); ++i) {
    const auto [x, sigma] = churned(run, state, static_cast<std::int64_t>(i));
    const double step = sigmas[i + 1] - sigma;
    const auto d = slope(run, x, sigma);
    auto x_next = x + step * d;
    if (sigmas[i + 1] > 0) {
      const auto d_next = slope(run, x_next, sigmas[i + 1]);
      x_next = x + step * (0.5 * (d + d_next));
    }
    state = {x_next, sigmas[i + 1]};
  }
  return state.x.to(torch::kFloat32);
}

}  // namespace

SamplerMethod heun_sampler() {
  return {check_sigma_steps, run_heun, [](const SamplerSpec& spec) { return 2 * spec.steps - 1; }};
}

}  // namespace onestep
