#include "worker/models/sd_denoiser.h"

#include "common/error.h"
#include "worker/models/diffusers_config.h"

namespace onestep {
namespace {

using nlohmann::json;

const std::vector<FixedKey> kFixedScheduleKeys = {
    {"beta_schedule", R"(["scaled_linear"])"},
    {"trained_betas", "[null]"},
    {"rescale_betas_zero_snr", "[false]"},
    {"thresholding", "[false]"},
    {"clip_sample", "[false]"},
};
// Options of the samplers of diffusers; which sampler runs here is the job's choice.
const std::vector<const char*> kSamplerKeys = {
    "_class_name", "set_alpha_to_one", "skip_prk_steps", "steps_offset", "timestep_spacing", "clip_sample_range",
    "dynamic_thresholding_ratio", "sample_max_value", "variance_type", "original_inference_steps", "timestep_scaling",
    "interpolation_type", "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "sigma_min", "sigma_max",
    "timestep_type", "final_sigmas_type", "algorithm_type", "solver_order", "solver_type", "lower_order_final",
    "euler_at_final", "lambda_min_clipped", "use_lu_lambdas", "use_flow_sigmas", "flow_shift", "prediction_type"};

}  // namespace

SdScheduleConfig sd_schedule_config_from_json(const json& document, const std::string& where) {
  ConfigReader reader(document, "");
  SdScheduleConfig config;
  if (document.is_object()) {
    check_fixed_keys(reader, document, kFixedScheduleKeys);
    know_harmless_keys(reader, document, kSamplerKeys);
    require_keys(reader, {"_class_name", "beta_schedule", "beta_start", "beta_end"});
  }
  config.num_train_timesteps = reader.integer("num_train_timesteps", config.num_train_timesteps, 2, 1 << 20);
  config.beta_start = reader.number("beta_start", config.beta_start, 1e-12, 1);
  config.beta_end = reader.number("beta_end", config.beta_end, 1e-12, 1);
  const bool v = reader.choice("prediction_type", "epsilon", {"epsilon", "v_prediction"}) == "v_prediction";
  config.prediction = v ? Prediction::kV : Prediction::kEpsilon;
  reader.finish(where);
  return config;
}

json to_diffusers_json(const SdScheduleConfig& config) {
  return {{"_class_name", "DDPMScheduler"},
          {"beta_schedule", "scaled_linear"},
          {"beta_start", config.beta_start},
          {"beta_end", config.beta_end},
          {"num_train_timesteps", config.num_train_timesteps},
          {"prediction_type", config.prediction == Prediction::kV ? "v_prediction" : "epsilon"}};
}

SdDenoiser::SdDenoiser(const SdUnetConfig& unet, const SdScheduleConfig& schedule, const torch::TensorOptions& tensors)
    : config_(schedule),
      schedule_(DiscreteSchedule::scaled_linear(schedule.num_train_timesteps, schedule.beta_start, schedule.beta_end)),
      unet_(unet, tensors) {}

ImageShape SdDenoiser::image_shape() const {
  const SdUnetConfig& config = unet_->config();
  return {config.in_channels, config.sample_size, config.sample_size};
}

void SdDenoiser::check_text(const torch::Tensor& x_t, const torch::Tensor& text) const {
  const std::int64_t width = unet_->config().cross_attention_dim;
  if (!text.defined() || text.dim() != 3 || text.size(0) != x_t.size(0) || text.size(2) != width) {
    throw Error(ErrorCode::kMismatch, "stable diffusion: text: expected [" + std::to_string(x_t.size(0)) + ", T, " +
                                          std::to_string(width) + "], found " +
                                          (text.defined() ? c10::str(text.sizes()) : std::string("nothing")));
  }
}

torch::Tensor SdDenoiser::denoise(const torch::Tensor& x_t, const torch::Tensor& t, const Condition& condition) {
  check_text(x_t, condition.text);
  const auto dtype = unet_->parameters().front().scalar_type();
  const auto raw = unet_(x_t.to(dtype), t, condition.text.to(dtype)).to(torch::kFloat32);
  const auto alpha_bar = schedule_.alpha_bar().index_select(0, t.to(torch::kCPU, torch::kInt64)).to(x_t.device());
  return x0_from_prediction(config_.prediction, raw, x_t, alpha_bar.sqrt(), (1 - alpha_bar).sqrt());
}

torch::Tensor SdDenoiser::bottleneck(const torch::Tensor& x_t, const torch::Tensor& t, const Condition& condition) {
  check_text(x_t, condition.text);
  const auto dtype = unet_->parameters().front().scalar_type();
  return unet_->bottleneck(x_t.to(dtype), t, condition.text.to(dtype)).to(torch::kFloat32);
}

// Each level but the first begins with a convolution of stride 2, which rounds up.
ImageShape SdDenoiser::bottleneck_shape() const {
  const SdUnetConfig& config = unet_->config();
  std::int64_t side = config.sample_size;
  for (std::size_t level = 1; level < config.block_out_channels.size(); ++level) side = (side + 1) / 2;
  return {config.block_out_channels.back(), side, side};
}

torch::Tensor SdDenoiser::one_step(const torch::Tensor& noise, const Condition& condition) {
  return denoise(noise, torch::full({noise.size(0)}, static_cast<double>(last_step()), noise.options()), condition);
}

}  // namespace onestep
