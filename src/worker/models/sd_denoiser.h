// Stable Diffusion as a Denoiser: the U-Net, its noise schedule, and the conversion of what it predicts to x0.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "worker/diffusion/denoiser.h"
#include "worker/models/sd_unet.h"
#include "worker/tensors/torch.h"

namespace onestep {

// scheduler_config.json, as far as it names the noise levels and the prediction. The defaults are those of Stable Diffusion 1.5.
struct SdScheduleConfig {
  std::int64_t num_train_timesteps = 1000;
  double beta_start = 0.00085, beta_end = 0.012;  // schedule "scaled_linear"
  Prediction prediction = Prediction::kEpsilon;   // SD 2.1 at 768 pixels: kV
};

// Strict in what changes the noise levels or the meaning of the output; a sampler's own options are known by name and not read.
// Errors: ConfigError.
SdScheduleConfig sd_schedule_config_from_json(const nlohmann::json& document, const std::string& where);
// The same facts in scheduler_config.json's words.
nlohmann::json to_diffusers_json(const SdScheduleConfig& config);

class SdDenoiser final : public Denoiser {
 public:
  // Parameters of the dtype of `tensors`; inputs and outputs of denoise() are fp32 whatever that is.
  SdDenoiser(const SdUnetConfig& unet, const SdScheduleConfig& schedule, const torch::TensorOptions& tensors = torch::kFloat32);
  // x_t [B,4,H,W] latents, t [B] step indices in [0, num_train_timesteps), condition.text [B,T,cross_attention_dim] -> x0 [B,4,H,W].
  // The conversion is fp64: at the last step it multiplies the network's error by 14.6. Errors: kMismatch for absent or misshapen text.
  torch::Tensor denoise(const torch::Tensor& x_t, const torch::Tensor& t, const Condition& condition) override;
  torch::Tensor bottleneck(const torch::Tensor& x_t, const torch::Tensor& t, const Condition& condition) override;
  [[nodiscard]] ImageShape bottleneck_shape() const override;
  // A distilled student's sample: x0 from unit noise taken as x_t at the last step.
  torch::Tensor one_step(const torch::Tensor& noise, const Condition& condition);
  [[nodiscard]] const NoiseSchedule& schedule() const override { return schedule_; }
  [[nodiscard]] Prediction prediction() const override { return config_.prediction; }
  [[nodiscard]] ImageShape image_shape() const override;
  [[nodiscard]] std::int64_t num_classes() const override { return 0; }
  // The U-Net itself: parameters under diffusers' names.
  torch::nn::Module& module() override { return *unet_; }
  void recompute_in_backward(bool on) override { unet_->recompute_in_backward(on); }
  [[nodiscard]] SdUnet& unet() { return unet_; }
  [[nodiscard]] std::int64_t last_step() const { return config_.num_train_timesteps - 1; }
  [[nodiscard]] const SdScheduleConfig& config() const { return config_; }

 private:
  void check_text(const torch::Tensor& x_t, const torch::Tensor& text) const;

  SdScheduleConfig config_;
  DiscreteSchedule schedule_;
  SdUnet unet_;
};

}  // namespace onestep
