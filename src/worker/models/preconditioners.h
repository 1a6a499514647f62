// The four preconditioners of Karras et al. 2022 (Eq. 7 and Table 1) around a U-Net: D = c_skip x + c_out F(c_in x; c_noise).
#pragma once

#include <memory>

#include "common/job_spec.h"
#include "worker/diffusion/denoiser.h"
#include "worker/models/unet.h"
#include "worker/tensors/torch.h"

namespace onestep {

// All of them in EDM's formulation: alpha = 1, t is sigma. The network inside is named `model`, as in the published files.
class Preconditioner : public torch::nn::Module, public Denoiser {
 public:
  // t is sigma [B]; labels [B]: -1 is no label, and so are undefined ones. The coefficients, x and the result are fp32,
  // whatever the weights are.
  torch::Tensor denoise(const torch::Tensor& x_t, const torch::Tensor& t, const Condition& condition) override;
  torch::Tensor bottleneck(const torch::Tensor& x_t, const torch::Tensor& t, const Condition& condition) override;
  [[nodiscard]] ImageShape bottleneck_shape() const override;
  [[nodiscard]] const NoiseSchedule& schedule() const override { return schedule_; }
  [[nodiscard]] Prediction prediction() const override { return Prediction::kX0; }
  [[nodiscard]] ImageShape image_shape() const override {
    return {spec_.image_channels, spec_.image_size, spec_.image_size};
  }
  [[nodiscard]] std::int64_t num_classes() const override { return spec_.label_dim; }
  torch::nn::Module& module() override { return *this; }
  void recompute_in_backward(bool on) override { model_->recompute_in_backward(on); }

  // By the device's kernels, on the CPU too, where they are slow: for tests. On a device they are the only ones.
  void use_grid_kernels(bool on) {
    grid_kernels_ = on;
    model_->use_grid_kernels(on);
  }

  [[nodiscard]] const NetworkSpec& spec() const { return spec_; }
  void initialize(std::uint64_t seed) { model_->initialize(seed, "model."); }
  // To kBFloat16 or back; buffers (frequencies, tables) stay fp32.
  void cast_weights(torch::ScalarType dtype);

 protected:
  struct Coefficients {
    torch::Tensor c_skip, c_out, c_in, c_noise;  // [B] fp32
  };

  Preconditioner(const NetworkSpec& spec, EdmSchedule schedule);
  [[nodiscard]] virtual Coefficients coefficients(const torch::Tensor& sigma) const = 0;

 private:
  [[nodiscard]] torch::Tensor one_hot(const Condition& condition, std::int64_t batch) const;

  NetworkSpec spec_;
  EdmSchedule schedule_;
  std::shared_ptr<Unet> model_;
  torch::Tensor any_weight_;  // tells the dtype
  bool grid_kernels_ = false;
};

// c_skip = sd^2 / (sigma^2 + sd^2), c_out = sigma sd / sqrt(sigma^2 + sd^2), c_in = 1 / sqrt(sigma^2 + sd^2),
// c_noise = ln(sigma) / 4.
class EdmPrecond final : public Preconditioner {
 public:
  explicit EdmPrecond(const NetworkSpec& spec);

 private:
  [[nodiscard]] Coefficients coefficients(const torch::Tensor& sigma) const override;
};

// c_skip = 1, c_out = -sigma, c_in = 1 / sqrt(sigma^2 + 1), c_noise = 999 t(sigma): Song et al.'s variance preserving SDE.
class VpPrecond final : public Preconditioner {
 public:
  explicit VpPrecond(const NetworkSpec& spec);

 private:
  [[nodiscard]] Coefficients coefficients(const torch::Tensor& sigma) const override;
};

// c_skip = 1, c_out = sigma, c_in = 1, c_noise = ln(sigma / 2): Song et al.'s variance exploding SDE.
class VePrecond final : public Preconditioner {
 public:
  explicit VePrecond(const NetworkSpec& spec);

 private:
  [[nodiscard]] Coefficients coefficients(const torch::Tensor& sigma) const override;
};

// As VP, but c_noise = 999 - j with u_j the level nearest to sigma: Nichol and Dhariwal's cosine schedule of 1,000 steps.
class IddpmPrecond final : public Preconditioner {
 public:
  explicit IddpmPrecond(const NetworkSpec& spec);

 private:
  [[nodiscard]] Coefficients coefficients(const torch::Tensor& sigma) const override;

  torch::Tensor u_;  // buffer u [1001], descending to 0
};

}  // namespace onestep
