// A distilled generator of several steps (DMD2, arXiv 2405.14867, Sec. 4.4): at each of its timesteps one network call for x0, which is
// then diffused to the next one with fresh noise. With one timestep: one_step.
#include "worker/sampling/few_step.h"

#include <cmath>
#include <string>

#include "common/error.h"
#include "worker/diffusion/noise_schedule.h"
#include "worker/sampling/sampler_method.h"
#include "worker/tensors/keyed_random.h"

namespace onestep {
namespace {

void check_few_step(const SamplerSpec& spec, const NoiseSchedule& schedule) {
  const auto refuse = [](const std::string& expected, double found) {
    throw Error(ErrorCode::kConfig, "few_step: timesteps: expected " + expected + ", found " + std::to_string(found));
  };
  if (spec.timesteps.empty()) throw Error(ErrorCode::kConfig, "few_step: timesteps: expected the student's, found none");
  const auto* discrete = dynamic_cast<const DiscreteSchedule*>(&schedule);
  for (std::size_t i = 0; i < spec.timesteps.size(); ++i) {
    const double t = spec.timesteps[i];
    if (i > 0 && t >= spec.timesteps[i - 1]) refuse("less than the one before it", t);
    if (discrete == nullptr) {
      if (!(t > 0)) refuse("sigmas above 0", t);
    } else if (t < 0 || t >= static_cast<double>(discrete->alpha_bar().size(0)) || t != std::floor(t)) {
      refuse("steps from 0 to " + std::to_string(discrete->alpha_bar().size(0) - 1), t);
    }
  }
}

torch::Tensor run_few_step(const SamplerRun& run) {
  const std::vector<double>& timesteps = run.spec.timesteps;
  if (timesteps.size() > 1 && !run.rows) {
    throw Error(ErrorCode::kConfig, "few_step draws noise: expected the rows' seed and indices, found none");
  }
  const NoiseSchedule& schedule = run.denoiser.schedule();
  const std::int64_t rows = run.noise.size(0);
  const auto every = [rows](double t) { return torch::full({rows}, t, torch::kFloat32); };
  auto x_t = per_sample(schedule.prior_deviation(every(timesteps.front()))) * run.noise;
  torch::Tensor x;
  for (std::size_t i = 0; i < timesteps.size(); ++i) {
    if (i > 0) {
      const auto t = every(timesteps[i]);
      x_t = per_sample(schedule.alpha(t)) * x + per_sample(schedule.sigma(t)) * few_step_noise(*run.rows, i - 1, run.noise.sizes());
    }
    x = run.denoiser.denoise(x_t, every(timesteps[i]), run.condition);
  }
  return x;
}

}  // namespace

torch::Tensor few_step_noise(const SampleRows& rows, std::size_t i, at::IntArrayRef shape) {
  return keyed_normal({rows.seed, RandomStream::kSamplerNoise, static_cast<std::uint32_t>(i)}, rows.first, shape[0], shape.slice(1));
}

SamplerMethod few_step_sampler() {
  return {check_few_step, run_few_step, [](const SamplerSpec& spec) { return static_cast<std::int64_t>(spec.timesteps.size()); }};
}

}  // namespace onestep
