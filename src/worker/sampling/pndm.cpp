// PNDM without Runge-Kutta steps (Liu et al. 2022, PLMS as Stable Diffusion uses it) over discrete steps, as diffusers spaces
// them: a linear multistep method on what the network predicts, noise or v, whose first step is a trapezoid of two calls.
#include <cmath>
#include <string>
#include <vector>

#include "common/error.h"
#include "worker/sampling/discrete_steps.h"

namespace onestep {
namespace {

void check_pndm(const SamplerSpec& spec, const NoiseSchedule& schedule) {
  check_discrete_steps(spec, schedule);
  if (spec.steps < 2) {
    throw Error(ErrorCode::kConfig, "pndm: steps: expected 2 or more, found " + std::to_string(spec.steps));
  }
}

// Eq. 11: from alpha-bar `here` to `next` along epsilon.
torch::Tensor transfer(const torch::Tensor& x, const torch::Tensor& epsilon, double here, double next) {
  const double scale = std::sqrt(next / here);
  const double denominator = here * std::sqrt(1 - next) + std::sqrt(here * (1 - here) * next);
  return scale * x - (next - here) / denominator * epsilon;
}

// Adams and Bashforth's weights on the last outputs e, newest last: as many as there are, at most four.
torch::Tensor multistep(const std::vector<torch::Tensor>& e) {
  const std::size_t n = e.size();
  if (n == 1) return e[0];
  if (n == 2) return (3 * e[1] - e[0]) / 2;
  if (n == 3) return (23 * e[2] - 16 * e[1] + 5 * e[0]) / 12;
  return (55 * e[n - 1] - 59 * e[n - 2] + 37 * e[n - 3] - 9 * e[n - 4]) / 24;
}

torch::Tensor run_pndm(const SamplerRun& run) {
  const DiscreteSteps steps(run);
  const bool is_v = run.denoiser.prediction() == Prediction::kV;
  // The network's output at step t: v where it predicts v = sqrt(abar) epsilon - sqrt(1 - abar) x0, else epsilon.
  const auto output_at = [&](const torch::Tensor& x, std::int64_t t) {
    const auto x0 = steps.denoised(x, t), epsilon = steps.noise_in(x, x0, t);
    const double alpha_bar = steps.alpha_bar(t);
    return is_v ? std::sqrt(alpha_bar) * epsilon - std::sqrt(1 - alpha_bar) * x0 : epsilon;
  };
  // The noise that an output, or several ones' mean, stands for in x.
  const auto noise_of = [&](const torch::Tensor& output, const torch::Tensor& x, double alpha_bar) {
    return is_v ? std::sqrt(alpha_bar) * output + std::sqrt(1 - alpha_bar) * x : output;
  };
  auto x = run.noise.to(torch::kFloat64);
  std::vector<torch::Tensor> outputs;
  for (const std::int64_t t : steps.timesteps()) {
    const std::int64_t next = t - steps.stride();
    const double here = steps.alpha_bar(t), there = steps.alpha_bar(next);
    outputs.push_back(output_at(x, t));
    auto output = multistep(outputs);
    if (outputs.size() == 1) {  // the trapezoid: the same step again, with the mean of the outputs at both its ends
      const auto ahead = output_at(transfer(x, noise_of(output, x, here), here, there), next);
      output = (ahead + output) / 2;
    }
    x = transfer(x, noise_of(output, x, here), here, there);
    if (outputs.size() == 4) outputs.erase(outputs.begin());
  }
  return x.to(torch::kFloat32);
}

}  // namespace

SamplerMethod pndm_sampler() {
  return {check_pndm, run_pndm, [](const SamplerSpec& spec) { return spec.steps + 1; }};
}

}  // namespace onestep
