#include "worker/models/preconditioners.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <utility>
#include <vector>

#include "worker/models/adm_unet.h"
#include "worker/models/song_unet.h"
#include "worker/tensors/image_ops.h"

namespace onestep {
namespace {

constexpr double kBetaD = 19.9, kBetaMin = 0.1;  // of the variance preserving SDE
constexpr double kFirstTime = 1e-5;              // its t runs from here to 1
constexpr std::int64_t kIddpmSteps = 1000;

std::shared_ptr<Unet> make_unet(const NetworkSpec& spec) {
  if (spec.network_class == "song_unet") return std::make_shared<SongUnetImpl>(spec);
  return std::make_shared<AdmUnetImpl>(spec);
}

// Weight 1/sigma^2 of the denoising loss (Table 1): EDM's, with sigma_data at infinity.
EdmSchedule plain_schedule(NoiseLevels levels) {
  return EdmSchedule(std::numeric_limits<double>::infinity(), 7.0, std::move(levels));
}

// sigma of the variance preserving SDE: sqrt(exp(beta_d t^2 / 2 + beta_min t) - 1).
double vp_sigma(double t) { return std::sqrt(std::expm1(0.5 * kBetaD * t * t + kBetaMin * t)); }

// u_1000 = 0; u_(j-1) = sqrt((u_j^2 + 1) / max(abar_(j-1) / abar_j, .001) - 1), abar_j = sin^2(pi/2 j / 1000 / 1.008).
std::vector<double> iddpm_levels() {
  constexpr double kFloor = 0.001, kOffset = 0.008;
  const auto alpha_bar = [](std::int64_t j) {
    const double root = std::sin(0.5 * std::numbers::pi * static_cast<double>(j) / kIddpmSteps / (1 + kOffset));
    return root * root;
  };
  std::vector<double> u(kIddpmSteps + 1, 0.0);
  for (std::int64_t j = kIddpmSteps; j > 0; --j) {
    u[j - 1] = std::sqrt((u[j] * u[j] + 1) / std::max(alpha_bar(j - 1) / alpha_bar(j), kFloor) - 1);
  }
  return u;
}

NoiseLevels iddpm_noise_levels() {
  NoiseLevels levels;
  levels.allowed = iddpm_levels();
  levels.allowed.pop_back();  // 0 is no level to sample at
  levels.max = levels.allowed.front();
  levels.min = levels.allowed.back();
  return levels;
}

}  // namespace

Preconditioner::Preconditioner(const NetworkSpec& spec, EdmSchedule schedule)
    : spec_(spec), schedule_(std::move(schedule)), model_(register_module("model", make_unet(spec))) {
  any_weight_ = model_->parameters().front();
}

void Preconditioner::cast_weights(torch::ScalarType dtype) {
  torch::NoGradGuard no_grad;
  for (torch::Tensor& parameter : parameters()) parameter.set_data(parameter.to(dtype));
}

torch::Tensor Preconditioner::one_hot(const Condition& condition, std::int64_t batch) const {
  if (spec_.label_dim == 0) return {};
  if (!condition.labels.defined()) return torch::zeros({batch, spec_.label_dim}, any_weight_.options().dtype(torch::kFloat32));
  const auto present = (condition.labels >= 0).unsqueeze(1);
  return torch::one_hot(condition.labels.clamp_min(0), spec_.label_dim).to(torch::kFloat32) * present;
}

torch::Tensor Preconditioner::denoise(const torch::Tensor& x_t, const torch::Tensor& t, const Condition& condition) {
  const auto [c_skip, c_out, c_in, c_noise] = coefficients(t);
  if (grid_kernels_ || !x_t.is_cpu()) {
    const auto F_x = model_->forward(scale_samples(x_t, c_in, any_weight_.scalar_type()), c_noise, one_hot(condition, x_t.size(0)));
    return combine_samples(x_t, F_x.narrow(1, 0, spec_.image_channels), c_skip, c_out);
  }
  const auto input = (per_sample(c_in) * x_t).to(any_weight_.scalar_type());
  const auto output = model_->forward(input, c_noise, one_hot(condition, x_t.size(0)));
  const auto F_x = (output.size(1) > spec_.image_channels ? output.narrow(1, 0, spec_.image_channels) : output).to(torch::kFloat32);
  return torch::addcmul(per_sample(c_skip) * x_t, per_sample(c_out), F_x);
}

ImageShape Preconditioner::bottleneck_shape() const {
  const std::int64_t side = spec_.image_size / spec_.pixel_unshuffle >> (spec_.channel_mult.size() - 1);
  return {spec_.model_channels * spec_.channel_mult.back(), side, side};
}

torch::Tensor Preconditioner::bottleneck(const torch::Tensor& x_t, const torch::Tensor& t, const Condition& condition) {
  const auto [c_skip, c_out, c_in, c_noise] = coefficients(t);
  const auto input = (per_sample(c_in) * x_t).to(any_weight_.scalar_type());
  return model_->bottleneck(input, c_noise, one_hot(condition, x_t.size(0))).to(torch::kFloat32);
}

EdmPrecond::EdmPrecond(const NetworkSpec& spec) : Preconditioner(spec, EdmSchedule(spec.sigma_data)) {}

Preconditioner::Coefficients EdmPrecond::coefficients(const torch::Tensor& sigma) const {
  const double sigma_data = spec().sigma_data;
  const auto variance = sigma.square() + sigma_data * sigma_data;
  return {sigma_data * sigma_data / variance, sigma * sigma_data * variance.rsqrt(), variance.rsqrt(), sigma.log() / 4};
}

VpPrecond::VpPrecond(const NetworkSpec& spec)
    : Preconditioner(spec, plain_schedule({vp_sigma(kFirstTime), vp_sigma(1), {}})) {}

// t(sigma) in fp64, rounded once: near sigma = 0 fp32 would lose it.
Preconditioner::Coefficients VpPrecond::coefficients(const torch::Tensor& sigma) const {
  const auto log_variance = sigma.to(torch::kFloat64).square().log1p();
  const auto time = ((kBetaMin * kBetaMin + 2 * kBetaD * log_variance).sqrt() - kBetaMin) / kBetaD;
  return {torch::ones_like(sigma), -sigma, (sigma.square() + 1).rsqrt(), (999 * time).to(torch::kFloat32)};
}

VePrecond::VePrecond(const NetworkSpec& spec) : Preconditioner(spec, plain_schedule({0.02, 100.0, {}})) {}

Preconditioner::Coefficients VePrecond::coefficients(const torch::Tensor& sigma) const {
  return {torch::ones_like(sigma), sigma, torch::ones_like(sigma), (0.5 * sigma).log()};
}

IddpmPrecond::IddpmPrecond(const NetworkSpec& spec)
    : Preconditioner(spec, plain_schedule(iddpm_noise_levels())),
      u_(register_buffer("u", torch::tensor(iddpm_levels(), torch::kFloat64).to(torch::kFloat32))) {}

Preconditioner::Coefficients IddpmPrecond::coefficients(const torch::Tensor& sigma) const {
  const auto nearest = (u_.unsqueeze(0) - sigma.unsqueeze(1)).abs().argmin(1);
  return {torch::ones_like(sigma), -sigma, (sigma.square() + 1).rsqrt(),
          (kIddpmSteps - 1 - nearest).to(torch::kFloat32)};
}

}  // namespace onestep
