// EDM preconditioning (Karras et al. 2022, Eq. 7 and Table 1) around a U-Net: D = c_skip x + c_out F(c_in x; c_noise).
#pragma once

#include <torch/torch.h>

#include "common/job_spec.h"
#include "worker/diffusion/denoiser.h"
#include "worker/models/adm_unet.h"

namespace onestep {

class EdmPrecond final : public torch::nn::Module, public Denoiser {
 public:
  explicit EdmPrecond(const NetworkSpec& spec);
  // t is sigma, [B]; labels may be undefined (unconditional: zeros). Everything in fp32.
  torch::Tensor denoise(const torch::Tensor& x_t, const torch::Tensor& t, const Condition& condition) override;
  [[nodiscard]] const NoiseSchedule& schedule() const override { return schedule_; }
  [[nodiscard]] Prediction prediction() const override { return Prediction::kX0; }
  [[nodiscard]] ImageShape image_shape() const override {
    return {spec_.image_channels, spec_.image_size, spec_.image_size};
  }
  [[nodiscard]] std::int64_t num_classes() const override { return spec_.label_dim; }
  torch::nn::Module& module() override { return *this; }
  [[nodiscard]] const NetworkSpec& spec() const { return spec_; }
  void initialize(std::uint64_t seed) { model->initialize(seed, "model."); }

 private:
  NetworkSpec spec_;
  EdmSchedule schedule_;
  AdmUnet model{nullptr};
};

}  // namespace onestep
