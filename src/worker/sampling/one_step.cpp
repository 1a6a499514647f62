// One network call: what a distilled generator is for.
#include <string>

#include "common/error.h"
#include "worker/diffusion/noise_schedule.h"
#include "worker/sampling/sampler_method.h"

namespace onestep {
namespace {

void check_one_step(const SamplerSpec& spec, const NoiseSchedule& schedule) {
  if (const auto* discrete = dynamic_cast<const DiscreteSchedule*>(&schedule)) {
    const std::int64_t last = discrete->alpha_bar().size(0) - 1;
    if (spec.timestep < 0 || spec.timestep > last) {
      throw Error(ErrorCode::kConfig, "one_step: timestep: expected a step from 0 to " + std::to_string(last) + ", found " +
                                          std::to_string(spec.timestep));
    }
  } else if (!(spec.sigma_max > 0)) {
    throw Error(ErrorCode::kConfig,
                "one_step: sigma_max: expected a number above 0, found " + std::to_string(spec.sigma_max));
  }
}

// Over sigma: D(sigma_max z; sigma_max). Over discrete steps: D(z; timestep), z standing for x_t at the noisy end.
torch::Tensor run_one_step(const SamplerRun& run) {
  const bool discrete = dynamic_cast<const DiscreteSchedule*>(&run.denoiser.schedule()) != nullptr;
  const double t = discrete ? static_cast<double>(run.spec.timestep) : run.spec.sigma_max;
  const auto x_t = discrete ? run.noise : run.noise * run.spec.sigma_max;
  return run.denoiser.denoise(x_t, torch::full({run.noise.size(0)}, t, run.noise.options()), run.condition);
}

}  // namespace

SamplerMethod one_step_sampler() {
  return {check_one_step, run_one_step, [](const SamplerSpec&) { return std::int64_t{1}; }};
}

}  // namespace onestep
