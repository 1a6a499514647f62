// alpha_t and sigma_t: how much image and how much noise x_t holds; and which t the algorithm draws.
#pragma once

#include <limits>
#include <utility>
#include <vector>

#include "worker/tensors/torch.h"

namespace onestep {

// What a network's raw output stands for.
enum class Prediction { kX0, kEpsilon, kV };

// x_t = alpha_t x_0 + sigma_t epsilon. Immutable, thread-safe.
class NoiseSchedule {
 public:
  virtual ~NoiseSchedule() = default;
  [[nodiscard]] virtual torch::Tensor alpha(const torch::Tensor& t) const = 0;  // [B] -> [B], fp32
  [[nodiscard]] virtual torch::Tensor sigma(const torch::Tensor& t) const = 0;  // [B] -> [B], fp32
  // u [B] uniform in (0,1) -> t [B]: the schedule's own coordinate between the noise levels sigma_lo and sigma_hi.
  [[nodiscard]] virtual torch::Tensor timestep(const torch::Tensor& u, double sigma_lo, double sigma_hi) const = 0;
  // What unit noise is multiplied by to stand for x_t where nothing is left of the image: [B] -> [B], fp32.
  [[nodiscard]] virtual torch::Tensor prior_deviation(const torch::Tensor& t) const = 0;
  // Weight of the denoising loss in x0 space (DMD Alg. 3), [B] fp32.
  [[nodiscard]] virtual torch::Tensor denoising_weight(const torch::Tensor& t) const = 0;
};

// Which sigma a network was made for.
struct NoiseLevels {
  double min = 0;
  double max = std::numeric_limits<double>::infinity();
  std::vector<double> allowed;  // descending; empty: every value between the two
};

// EDM: alpha = 1, sigma_t = t; t is uniform in t^(1/rho); weight 1/sigma^2 + 1/sigma_data^2 (Karras et al. 2022, Table 1).
class EdmSchedule final : public NoiseSchedule {
 public:
  explicit EdmSchedule(double sigma_data = 0.5, double rho = 7.0, NoiseLevels levels = {})
      : sigma_data_(sigma_data), rho_(rho), levels_(std::move(levels)) {}
  [[nodiscard]] torch::Tensor alpha(const torch::Tensor& t) const override;
  [[nodiscard]] torch::Tensor sigma(const torch::Tensor& t) const override;
  [[nodiscard]] torch::Tensor timestep(const torch::Tensor& u, double sigma_lo, double sigma_hi) const override;
  [[nodiscard]] torch::Tensor prior_deviation(const torch::Tensor& t) const override { return sigma(t); }
  [[nodiscard]] torch::Tensor denoising_weight(const torch::Tensor& t) const override;
  [[nodiscard]] const NoiseLevels& levels() const { return levels_; }
  // The allowed level next to sigma: sigma itself where all are.
  [[nodiscard]] double nearest(double sigma) const;

 private:
  double sigma_data_, rho_;
  NoiseLevels levels_;
};

// Variance preserving, by a table of cumulative alpha-bar over integer steps (SD): alpha = sqrt(abar), sigma = sqrt(1 - abar);
// t is uniform over the steps whose noise level sigma/alpha lies in [sigma_lo, sigma_hi]; weight: SNR (plain epsilon MSE).
class DiscreteSchedule final : public NoiseSchedule {
 public:
  // alpha_bar [T] fp64, strictly decreasing in (0, 1). Errors: kConfig.
  explicit DiscreteSchedule(torch::Tensor alpha_bar);
  // beta_t = linspace(sqrt(beta_start), sqrt(beta_end), T)^2, in fp32 as the reference does.
  static DiscreteSchedule scaled_linear(std::int64_t steps, double beta_start, double beta_end);
  [[nodiscard]] torch::Tensor alpha(const torch::Tensor& t) const override;
  [[nodiscard]] torch::Tensor sigma(const torch::Tensor& t) const override;
  [[nodiscard]] torch::Tensor timestep(const torch::Tensor& u, double sigma_lo, double sigma_hi) const override;
  [[nodiscard]] torch::Tensor prior_deviation(const torch::Tensor& t) const override { return torch::ones_like(t); }
  [[nodiscard]] torch::Tensor denoising_weight(const torch::Tensor& t) const override;
  // sigma/alpha of a step, as timestep() compares it.
  [[nodiscard]] double noise_level(std::int64_t step) const { return level_[step].item<double>(); }
  [[nodiscard]] const torch::Tensor& alpha_bar() const { return alpha_bar_; }

 private:
  torch::Tensor alpha_bar_, alpha_, sigma_, level_;
};

// x0 from a raw prediction: epsilon: (x_t - sigma eps)/alpha; v: alpha x_t - sigma v. fp64 inside: at the noisy end alpha
// is small and amplifies the error. All [B,C,H,W] with alpha, sigma [B].
torch::Tensor x0_from_prediction(Prediction prediction, const torch::Tensor& raw, const torch::Tensor& x_t,
                                 const torch::Tensor& alpha, const torch::Tensor& sigma);

// [B] -> [B,1,1,1].
inline torch::Tensor per_sample(const torch::Tensor& values) { return values.view({-1, 1, 1, 1}); }

}  // namespace onestep
