#include "worker/run/diffusers_export.h"

#include <map>
#include <nlohmann/json.hpp>
#include <span>

#include "common/durable_file.h"
#include "common/error.h"
#include "common/hash.h"
#include "worker/run/clip_tokenizer_files.h"
#include "worker/sampling/few_step.h"
#include "worker/tensors/keyed_random.h"
#include "worker/tensors/weight_type.h"

namespace onestep {
namespace {

using nlohmann::json;

// The oldest release whose files look like these; newer ones read them without a word.
constexpr const char* kDiffusersVersion = "0.30.0";
constexpr SampleRows kSdSampleRows{.seed = 0, .first = 0};  // of samples.safetensors

torch::ScalarType torch_type(DType dtype) {
  if (const auto type = weight_type(dtype)) return *type;
  throw Error(ErrorCode::kUsage, std::string("export: dtype: expected F32, F16 or BF16, found ") + to_string(dtype));
}

const char* dtype_name(DType dtype) {
  return dtype == DType::kF32 ? "float32" : dtype == DType::kF16 ? "float16" : "bfloat16";
}

TensorView view_of(const std::string& name, DType dtype, const torch::Tensor& tensor) {
  return {name, dtype, tensor.sizes().vec(), {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()}};
}

// A network's parameters as `dtype`, and the views of them.
struct Weights {
  std::vector<torch::Tensor> kept;
  std::vector<TensorView> views;
};

Weights weights_of(const torch::nn::Module& network, DType dtype) {
  Weights weights;
  for (const auto& item : network.named_parameters()) {
    weights.kept.push_back(item.value().detach().to(torch::kCPU, torch_type(dtype)).contiguous());
    weights.views.push_back(view_of(item.key(), dtype, weights.kept.back()));
  }
  return weights;
}

// The folder as it grows: every file's digest is kept for SHA256SUMS.
class ExportFolder {
 public:
  explicit ExportFolder(std::string folder) : folder_(std::move(folder)) { create_folders_durably(folder_); }

  void create(const std::string& name) { create_folders_durably(folder_ + "/" + name); }
  void text(const std::string& name, const std::string& content) {
    write_file_durably(folder_ + "/" + name, content);
    digests_[name] = sha256(content);
  }
  void document(const std::string& name, json content) {
    if (content.contains("_class_name")) content["_diffusers_version"] = kDiffusersVersion;
    text(name, content.dump(2) + "\n");
  }
  void tensors(const std::string& name, const std::vector<TensorView>& views, const Metadata& metadata) {
    digests_[name] = write_safetensors(folder_ + "/" + name, views, metadata);
  }
  void weights(const std::string& name, const torch::nn::Module& network, DType dtype) {
    tensors(name, weights_of(network, dtype).views, {});
  }
  [[nodiscard]] const std::string& digest(const std::string& name) const { return digests_.at(name); }
  // Writes SHA256SUMS; returns its digest.
  std::string finish() {
    std::string sums;
    for (const auto& [name, digest] : digests_) sums += digest + "  " + name + "\n";
    write_file_durably(folder_ + "/SHA256SUMS", sums);
    return sha256(sums);
  }

 private:
  std::string folder_;
  std::map<std::string, std::string> digests_;
};

json model_index(const char* scheduler) {
  const json none = {nullptr, nullptr};
  return {{"_class_name", "StableDiffusionPipeline"},
          {"feature_extractor", none},
          {"image_encoder", none},
          {"requires_safety_checker", false},
          {"safety_checker", none},
          {"scheduler", {"diffusers", scheduler}},
          {"text_encoder", {"transformers", "CLIPTextModel"}},
          {"tokenizer", {"transformers", "CLIPTokenizer"}},
          {"unet", {"diffusers", "UNet2DConditionModel"}},
          {"vae", {"diffusers", "AutoencoderKL"}}};
}

// One inference step of it starts at the last training step and returns x0 (times 1 - 1e-9). It warns of timesteps that are not among
// its original ones: to a student of several steps, all are.
json lcm_scheduler(const SdScheduleConfig& config, bool one_step) {
  return {{"_class_name", "LCMScheduler"},
          {"beta_end", config.beta_end},
          {"beta_schedule", "scaled_linear"},
          {"beta_start", config.beta_start},
          {"clip_sample", false},
          {"num_train_timesteps", config.num_train_timesteps},
          {"original_inference_steps", one_step ? 50 : config.num_train_timesteps},
          {"prediction_type", config.prediction == Prediction::kV ? "v_prediction" : "epsilon"},
          {"set_alpha_to_one", false},
          {"steps_offset", 1},
          {"timestep_spacing", "leading"}};
}

json pndm_scheduler(const SdScheduleConfig& config) {
  json document = lcm_scheduler(config, /*one_step=*/true);
  document["_class_name"] = "PNDMScheduler";
  document["skip_prk_steps"] = true;
  document.erase("clip_sample");
  document.erase("original_inference_steps");
  return document;
}

std::string model_card(const SdPipeline& pipeline, const SdExportOptions& options) {
  const SdUnetConfig& unet = pipeline.denoiser->unet()->config();
  const auto scale = std::int64_t{1} << (pipeline.vae->config().block_out_channels.size() - 1);
  const std::string side = std::to_string(unet.sample_size * scale);
  const std::vector<double>& timesteps = options.student_timesteps;
  const std::string calls = timesteps.empty() ? "a single network call" : std::to_string(timesteps.size()) + " network calls";
  std::string card = "# " + (timesteps.empty() ? "One-step text to image" : "Text to image in " + std::to_string(timesteps.size()) + " steps") +
                     "\n\nStable Diffusion distilled to " + calls + " by distribution matching (DMD), in the layout of diffusers, " + side + " x " + side + " pixels, weights in " +
                     dtype_name(options.dtype) + ".\n\n";
  const auto line = [&](const std::string& what, const std::string& value) {
    if (!value.empty()) card += "- " + what + ": " + value + "\n";
  };
  line("Teacher", options.card.teacher);
  line("Data", options.card.data);
  if (options.card.steps > 0) line("Distillation steps", std::to_string(options.card.steps));
  if (options.card.images > 0) line("Images seen", std::to_string(options.card.images));
  line("Metric", options.card.metric);
  card += std::string("\n```python\nimport torch\nfrom diffusers import DiffusionPipeline\n\npipeline = "
                      "DiffusionPipeline.from_pretrained(\".\", dtype=torch.") + dtype_name(options.dtype) +
          ")\nimage = pipeline(\"a photo of a cat\", " +
          (timesteps.empty() ? "num_inference_steps=1" : "timesteps=" + json(std::vector<std::int64_t>(timesteps.begin(), timesteps.end())).dump()) +
          ", guidance_scale=1.0).images[0]\n```\n\n" + (timesteps.empty() ? "One step" : "These steps") +
          " and no guidance: other numbers are not what it was trained for.\n";
  if (!options.sample_prompts.empty()) {
    card += "`samples.safetensors` holds noise, latents and images of the prompts in its metadata, to check a reader by.\n";
  }
  return card + "`SHA256SUMS` lists every file: `sha256sum -c SHA256SUMS`.\n";
}

void write_samples(ExportFolder& folder, SdPipeline& pipeline, const std::vector<std::string>& prompts,
                   const std::vector<double>& timesteps) {
  const auto [channels, height, width] = pipeline.denoiser->image_shape();
  const auto count = static_cast<std::int64_t>(prompts.size());
  const auto noise = keyed_normal({0, RandomStream::kSampleNoise, 0}, 0, count, {channels, height, width});
  const SdSamples samples = sample_student(pipeline, noise, prompts, timesteps);
  const auto latents = samples.latents.contiguous(), images = samples.images.contiguous();
  std::vector<TensorView> views = {view_of("noise", DType::kF32, noise), view_of("latents", DType::kF32, latents),
                                   view_of("images", DType::kF32, images)};
  std::vector<torch::Tensor> later;
  for (std::size_t i = 1; i < timesteps.size(); ++i) {
    later.push_back(few_step_noise(kSdSampleRows, i - 1, noise.sizes()));
    views.push_back(view_of("noise_" + std::to_string(i), DType::kF32, later.back()));
  }
  folder.tensors("samples.safetensors", views, {{"prompts", json(prompts).dump()}});
}

// All but the scheduler and the index, which come last: with the index, the folder is a pipeline.
void write_parts(ExportFolder& out, SdPipeline& pipeline, DType dtype) {
  for (const char* name : {"unet", "vae", "text_encoder", "tokenizer", "scheduler"}) out.create(name);
  const SdUnet& unet = pipeline.denoiser->unet();
  out.document("unet/config.json", to_diffusers_json(unet->config()));
  out.weights("unet/diffusion_pytorch_model.safetensors", *unet, dtype);
  out.document("vae/config.json", to_diffusers_json(pipeline.vae->config()));
  out.weights("vae/diffusion_pytorch_model.safetensors", *pipeline.vae, dtype);
  out.document("text_encoder/config.json", to_transformers_json(pipeline.text_encoder->config(), dtype_name(dtype)));
  out.weights("text_encoder/model.safetensors", *pipeline.text_encoder, dtype);
  for (const auto& [name, content] : clip_tokenizer_files(*pipeline.tokenizer)) out.text("tokenizer/" + name, content);
}

}  // namespace

SdSamples sample_student(SdPipeline& pipeline, const torch::Tensor& noise, const std::vector<std::string>& prompts,
                         const std::vector<double>& student_timesteps) {
  torch::NoGradGuard no_grad;
  const auto device = pipeline.text_encoder->parameters().front().device();
  const Condition condition{{}, embed_prompts(pipeline, prompts).to(device)};
  SdSamples samples;
  if (student_timesteps.empty()) {
    samples.latents = pipeline.denoiser->one_step(noise.to(device), condition);
  } else {
    SamplerSpec sampler;
    sampler.kind = "few_step";
    sampler.timesteps = student_timesteps;
    samples.latents = sample(*pipeline.denoiser, sampler, noise.to(device), condition, {.rows = kSdSampleRows, .null_text = {}});
  }
  const auto dtype = pipeline.vae->parameters().front().scalar_type();
  samples.images = pipeline.vae->images_of(samples.latents.to(dtype)).to(torch::kCPU, torch::kFloat32);
  samples.latents = samples.latents.to(torch::kCPU);
  return samples;
}

std::string export_diffusers_folder(const std::string& folder, SdPipeline& pipeline, const SdExportOptions& options) {
  torch_type(options.dtype);  // refused before anything is written
  ExportFolder out(folder);
  write_parts(out, pipeline, options.dtype);
  out.document("scheduler/scheduler_config.json", lcm_scheduler(pipeline.denoiser->config(), options.student_timesteps.empty()));
  out.document("model_index.json", model_index("LCMScheduler"));
  if (!options.origin.is_null()) {
    json origin = options.origin;
    origin["unet_sha256"] = out.digest("unet/diffusion_pytorch_model.safetensors");
    out.document("onestep.json", origin);
  }
  if (!options.sample_prompts.empty()) write_samples(out, pipeline, options.sample_prompts, options.student_timesteps);
  out.text("README.md", model_card(pipeline, options));
  return out.finish();
}

std::string export_teacher_folder(const std::string& folder, SdPipeline& pipeline, DType dtype) {
  torch_type(dtype);
  ExportFolder out(folder);
  write_parts(out, pipeline, dtype);
  out.document("scheduler/scheduler_config.json", pndm_scheduler(pipeline.denoiser->config()));
  out.document("model_index.json", model_index("PNDMScheduler"));
  return out.finish();
}

void save_autoencoder_kl(const std::string& folder, const AutoencoderKlConfig& config, const AutoencoderKlImpl& network) {
  ExportFolder out(folder);
  out.weights("diffusion_pytorch_model.safetensors", network, DType::kF32);
  out.document("config.json", to_diffusers_json(config));
}

std::string export_unet_file(const std::string& path, SdDenoiser& denoiser, DType dtype) {
  return write_safetensors(path, weights_of(denoiser.module(), dtype).views, {});
}

}  // namespace onestep
