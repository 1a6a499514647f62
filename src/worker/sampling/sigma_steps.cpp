#include "worker/sampling/sigma_steps.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "common/error.h"
#include "worker/tensors/keyed_random.h"

namespace onestep {

const EdmSchedule& sigma_schedule(const SamplerSpec& spec, const NoiseSchedule& schedule) {
  const auto* found = dynamic_cast<const EdmSchedule*>(&schedule);
  if (found == nullptr) {
    throw Error(ErrorCode::kConfig, spec.kind + ": expected a network whose noise is given by sigma, found one of discrete steps");
  }
  return *found;
}

void check_sigma_steps(const SamplerSpec& spec, const NoiseSchedule& schedule) {
  if (spec.steps < 2 || !(spec.sigma_min > 0) || !(spec.sigma_max > spec.sigma_min) || !(spec.rho > 0)) {
    throw Error(ErrorCode::kConfig,
                spec.kind + ": expected steps >= 2, 0 < sigma_min < sigma_max and rho > 0, found steps " +
                    std::to_string(spec.steps) + ", sigma_min " + std::to_string(spec.sigma_min) + ", sigma_max " +
                    std::to_string(spec.sigma_max) + ", rho " + std::to_string(spec.rho));
  }
  const NoiseLevels& levels = sigma_schedule(spec, schedule).levels();
  if (spec.sigma_min < levels.min || spec.sigma_max > levels.max) {
    throw Error(ErrorCode::kConfig, spec.kind + ": expected sigma_min and sigma_max within the network's levels, " +
                                        std::to_string(levels.min) + " to " + std::to_string(levels.max) + ", found " +
                                        std::to_string(spec.sigma_min) + " and " + std::to_string(spec.sigma_max));
  }
  if (!(spec.S_churn >= 0) || !(spec.S_min >= 0) || !(spec.S_max >= spec.S_min) || !(spec.S_noise > 0)) {
    throw Error(ErrorCode::kConfig,
                spec.kind + ": expected S_churn >= 0, 0 <= S_min <= S_max and S_noise > 0, found S_churn " +
                    std::to_string(spec.S_churn) + ", S_min " + std::to_string(spec.S_min) + ", S_max " +
                    std::to_string(spec.S_max) + ", S_noise " + std::to_string(spec.S_noise));
  }
}

std::vector<double> sigma_steps(const SamplerSpec& spec, const EdmSchedule& schedule) {
  const double high = std::pow(spec.sigma_max, 1 / spec.rho);
  const double low = std::pow(spec.sigma_min, 1 / spec.rho);
  std::vector<double> sigmas;
  for (std::int64_t i = 0; i < spec.steps; ++i) {
    const double fraction = static_cast<double>(i) / static_cast<double>(spec.steps - 1);
    sigmas.push_back(schedule.nearest(std::pow(high + fraction * (low - high), spec.rho)));
  }
  sigmas.push_back(0);
  return sigmas;
}

torch::Tensor slope(const SamplerRun& run, const torch::Tensor& x, double sigma) {
  const auto t = torch::full({x.size(0)}, sigma, x.options().dtype(torch::kFloat32));
  const auto denoised = run.denoiser.denoise(x.to(torch::kFloat32), t, run.condition).to(torch::kFloat64);
  return (x - denoised) / sigma;
}

NoisyState churned(const SamplerRun& run, const NoisyState& state, std::int64_t step) {
  const SamplerSpec& spec = run.spec;
  const double gamma = std::min(spec.S_churn / static_cast<double>(spec.steps), std::sqrt(2.0) - 1);
  if (!(gamma > 0) || state.sigma < spec.S_min || state.sigma > spec.S_max) return state;
  if (!run.rows) {
    throw Error(ErrorCode::kConfig, spec.kind + ": S_churn above 0 draws noise: expected the rows' seed and indices, found none");
  }
  const double sigma = sigma_schedule(spec, run.denoiser.schedule()).nearest(state.sigma * (1 + gamma));
  const double added = std::sqrt(std::max(0.0, sigma * sigma - state.sigma * state.sigma)) * spec.S_noise;
  const auto noise = keyed_normal({run.rows->seed, RandomStream::kSamplerNoise, static_cast<std::uint32_t>(step)},
                                  run.rows->first, state.x.size(0), state.x.sizes().slice(1));
  return {state.x + added * noise.to(torch::kFloat64), sigma};
}

}  // namespace onestep
