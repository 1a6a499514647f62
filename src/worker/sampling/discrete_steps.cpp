#include "worker/sampling/discrete_steps.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "common/error.h"

namespace onestep {

void check_discrete_steps(const SamplerSpec& spec, const NoiseSchedule& schedule) {
  const auto* discrete = dynamic_cast<const DiscreteSchedule*>(&schedule);
  if (discrete == nullptr) {
    throw Error(ErrorCode::kConfig, spec.kind + ": expected a network of discrete steps, found one whose noise is given by sigma");
  }
  const std::int64_t size = discrete->alpha_bar().size(0);
  const bool some = spec.steps >= 1 && spec.steps <= size && spec.steps_offset >= 0;
  if (!some || (spec.steps - 1) * (size / spec.steps) + spec.steps_offset >= size) {
    throw Error(ErrorCode::kConfig, spec.kind + ": expected steps and steps_offset that stay below the table's " +
                                        std::to_string(size) + " steps, found steps " + std::to_string(spec.steps) +
                                        ", steps_offset " + std::to_string(spec.steps_offset));
  }
}

DiscreteSteps::DiscreteSteps(const SamplerRun& run)
    : run_(run), schedule_(dynamic_cast<const DiscreteSchedule&>(run.denoiser.schedule())) {
  stride_ = schedule_.alpha_bar().size(0) / run.spec.steps;
  for (std::int64_t i = run.spec.steps - 1; i >= 0; --i) timesteps_.push_back(i * stride_ + run.spec.steps_offset);
}

double DiscreteSteps::alpha_bar(std::int64_t t) const {
  if (t < 0 && run_.spec.set_alpha_to_one) return 1;
  return schedule_.alpha_bar()[std::max<std::int64_t>(t, 0)].item<double>();
}

torch::Tensor DiscreteSteps::denoised(const torch::Tensor& x, std::int64_t t) const {
  const auto steps = torch::full({x.size(0)}, static_cast<double>(t), x.options().dtype(torch::kFloat32));
  return run_.denoiser.denoise(x.to(torch::kFloat32), steps, run_.condition).to(torch::kFloat64);
}

torch::Tensor DiscreteSteps::noise_in(const torch::Tensor& x, const torch::Tensor& x0, std::int64_t t) const {
  const double abar = alpha_bar(t);
  return (x - std::sqrt(abar) * x0) / std::sqrt(1 - abar);
}

}  // namespace onestep
