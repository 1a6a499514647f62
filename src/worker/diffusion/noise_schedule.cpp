#include "worker/diffusion/noise_schedule.h"

#include <cmath>

#include "common/error.h"

namespace onestep {

torch::Tensor EdmSchedule::alpha(const torch::Tensor& t) const { return torch::ones_like(t); }

torch::Tensor EdmSchedule::sigma(const torch::Tensor& t) const { return t; }

torch::Tensor EdmSchedule::timestep(const torch::Tensor& u, double sigma_lo, double sigma_hi) const {
  const double hi = std::pow(sigma_hi, 1 / rho_);
  const double lo = std::pow(sigma_lo, 1 / rho_);
  // fp64, then one rounding: powers in fp32 differ between vector and scalar code.
  return (hi + u.to(torch::kFloat64) * (lo - hi)).pow(rho_).to(torch::kFloat32);
}

torch::Tensor EdmSchedule::denoising_weight(const torch::Tensor& t) const {
  return 1 / t.square() + 1 / (sigma_data_ * sigma_data_);
}

double EdmSchedule::nearest(double sigma) const {
  double best = levels_.allowed.empty() ? sigma : levels_.allowed.front();
  for (const double level : levels_.allowed) {
    if (std::abs(level - sigma) < std::abs(best - sigma)) best = level;
  }
  return best;
}

DiscreteSchedule::DiscreteSchedule(torch::Tensor alpha_bar) : alpha_bar_(std::move(alpha_bar)) {
  const bool valid = alpha_bar_.dim() == 1 && alpha_bar_.size(0) >= 2 &&
                     alpha_bar_.scalar_type() == torch::kFloat64 &&
                     (alpha_bar_.slice(0, 1) < alpha_bar_.slice(0, 0, -1)).all().item<bool>() &&
                     (alpha_bar_ > 0).all().item<bool>() && (alpha_bar_ < 1).all().item<bool>();
  if (!valid) {
    throw Error(ErrorCode::kConfig,
                "noise schedule: alpha_bar must be fp64 [T >= 2], strictly decreasing within (0, 1)");
  }
  alpha_ = alpha_bar_.sqrt().to(torch::kFloat32);
  sigma_ = (1 - alpha_bar_).sqrt().to(torch::kFloat32);
  level_ = ((1 - alpha_bar_) / alpha_bar_).sqrt();
}

DiscreteSchedule DiscreteSchedule::scaled_linear(std::int64_t steps, double beta_start, double beta_end) {
  const auto beta =
      torch::linspace(std::sqrt(beta_start), std::sqrt(beta_end), steps, torch::kFloat32).square();
  return DiscreteSchedule((1 - beta).cumprod(0).to(torch::kFloat64));
}

torch::Tensor DiscreteSchedule::alpha(const torch::Tensor& t) const {
  return alpha_.index_select(0, t.to(torch::kInt64));
}

torch::Tensor DiscreteSchedule::sigma(const torch::Tensor& t) const {
  return sigma_.index_select(0, t.to(torch::kInt64));
}

torch::Tensor DiscreteSchedule::timestep(const torch::Tensor& u, double sigma_lo, double sigma_hi) const {
  const std::int64_t first = (level_ < sigma_lo).sum().item<std::int64_t>();
  const std::int64_t last = (level_ <= sigma_hi).sum().item<std::int64_t>() - 1;
  if (last < first) {
    throw Error(ErrorCode::kConfig, "noise schedule: no step has a noise level between " +
                                        std::to_string(sigma_lo) + " and " + std::to_string(sigma_hi));
  }
  return (first + (u.to(torch::kFloat64) * static_cast<double>(last - first + 1)).floor())
      .clamp_max(static_cast<double>(last))
      .to(torch::kFloat32);
}

torch::Tensor DiscreteSchedule::denoising_weight(const torch::Tensor& t) const {
  return (alpha(t) / sigma(t)).square();
}

torch::Tensor x0_from_prediction(Prediction prediction, const torch::Tensor& raw, const torch::Tensor& x_t,
                                 const torch::Tensor& alpha, const torch::Tensor& sigma) {
  if (prediction == Prediction::kX0) return raw;
  const auto a = per_sample(alpha.to(torch::kFloat64));
  const auto s = per_sample(sigma.to(torch::kFloat64));
  const auto noisy = x_t.to(torch::kFloat64);
  const auto output = raw.to(torch::kFloat64);
  const auto x0 = prediction == Prediction::kEpsilon ? (noisy - s * output) / a : a * noisy - s * output;
  return x0.to(torch::kFloat32);
}

}  // namespace onestep
