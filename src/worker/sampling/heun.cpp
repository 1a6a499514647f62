#include "worker/sampling/heun.h"

#include <cmath>
#include <string>

#include "common/error.h"

namespace onestep {
namespace {

// dx/dsigma = (x - D(x; sigma)) / sigma at one sigma for the whole batch (Algorithm 1, lines 4 and
// 7).
torch::Tensor slope(Denoiser& denoiser, const torch::Tensor& x, double sigma,
                    const Condition& condition) {
  const auto t = torch::full({x.size(0)}, sigma, x.options().dtype(torch::kFloat32));
  const auto denoised = denoiser.denoise(x.to(torch::kFloat32), t, condition).to(torch::kFloat64);
  return (x - denoised) / sigma;
}

}  // namespace

std::vector<double> heun_sigmas(const SamplerSpec& spec) {
  if (spec.steps < 2 || !(spec.sigma_min > 0) || !(spec.sigma_max > spec.sigma_min) ||
      !(spec.rho > 0)) {
    throw Error(ErrorCode::kConfig,
                "heun: expected steps >= 2, 0 < sigma_min < sigma_max and rho > 0, found steps " +
                    std::to_string(spec.steps) + ", sigma_min " + std::to_string(spec.sigma_min) +
                    ", sigma_max " + std::to_string(spec.sigma_max) + ", rho " +
                    std::to_string(spec.rho));
  }
  const double high = std::pow(spec.sigma_max, 1 / spec.rho);
  const double low = std::pow(spec.sigma_min, 1 / spec.rho);
  std::vector<double> sigmas;
  for (std::int64_t i = 0; i < spec.steps; ++i) {
    const double fraction = static_cast<double>(i) / static_cast<double>(spec.steps - 1);
    sigmas.push_back(std::pow(high + fraction * (low - high), spec.rho));
  }
  sigmas.push_back(0);
  return sigmas;
}

torch::Tensor sample_heun(Denoiser& denoiser, const SamplerSpec& spec, const torch::Tensor& noise,
                          const Condition& condition) {
  const auto sigmas = heun_sigmas(spec);
  auto x = noise.to(torch::kFloat64) * sigmas.front();
  for (std::size_t i = 0; i + 1 < sigmas.size(); ++i) {
    const double step = sigmas[i + 1] - sigmas[i];
    const auto d = slope(denoiser, x, sigmas[i], condition);
    auto x_next = x + step * d;
    if (sigmas[i + 1] > 0) {
      const auto d_next = slope(denoiser, x_next, sigmas[i + 1], condition);
      x_next = x + step * (0.5 * (d + d_next));
    }
    x = x_next;
  }
  return x.to(torch::kFloat32);
}

}  // namespace onestep
