#include "worker/run/diffusers_folder.h"

#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <span>

#include "common/config.h"
#include "common/error.h"
#include "common/hash.h"
#include "common/safetensors_file.h"
#include "worker/models/load_weights.h"
#include "worker/models/weight_names.h"
#include "worker/run/clip_tokenizer_files.h"
#include "worker/tensors/flat_parameters.h"

namespace onestep {
namespace {

using nlohmann::json;

constexpr const char* kDiffusersWeights = "diffusion_pytorch_model.safetensors";
constexpr const char* kTransformersWeights = "model.safetensors";

std::string weights_path(const std::string& folder, const char* name) {
  std::string path = folder + "/" + name;
  if (file_exists(path)) return path;
  const std::string stem = path.substr(0, path.size() - std::string("safetensors").size());
  const bool pickled = file_exists(stem + "bin") || file_exists(folder + "/pytorch_model.bin");
  throw Error(ErrorCode::kNotFound, path + ": no such file" + (pickled ? "; a .bin file must be converted first" : ""));
}

// The tensors of one file into one network, by `named`.
template <class Named>
void load(torch::nn::Module& network, const std::string& path, Named named) {
  const SafetensorsFile file(path);
  load_weights(network, named(file.tensors()), path, [&](std::span<const std::byte> part) { file.release(part); });
}

// Library and class that model_index.json may name for a part; parts with several are read alike.
const std::map<std::string, std::set<std::string>>& known_parts() {
  static const std::map<std::string, std::set<std::string>> kParts = {
      {"unet", {"diffusers/UNet2DConditionModel"}},
      {"vae", {"diffusers/AutoencoderKL"}},
      {"text_encoder", {"transformers/CLIPTextModel"}},
      {"tokenizer", {"transformers/CLIPTokenizer", "transformers/CLIPTokenizerFast"}},
      {"scheduler",
       {"diffusers/PNDMScheduler", "diffusers/DDIMScheduler", "diffusers/DDPMScheduler", "diffusers/LCMScheduler",
        "diffusers/LMSDiscreteScheduler", "diffusers/EulerDiscreteScheduler", "diffusers/EulerAncestralDiscreteScheduler",
        "diffusers/DPMSolverMultistepScheduler"}}};
  return kParts;
}

// Not read: they look at finished images.
const std::set<std::string> kOtherParts = {"safety_checker", "feature_extractor", "image_encoder"};

void check_model_index(const std::string& folder) {
  const std::string where = folder + "/model_index.json";
  const json index = read_json_file(where);
  ConfigReader reader(index, "");
  reader.choice("_class_name", "", {"StableDiffusionPipeline"});
  if (!reader.has("_class_name")) reader.violation("_class_name", "expected StableDiffusionPipeline, found nothing (required)");
  reader.boolean("requires_safety_checker", false);
  for (const auto& [part, classes] : known_parts()) {
    const auto found = reader.texts(part, {});
    if (found.size() == 2 && classes.contains(found[0] + "/" + found[1])) continue;
    std::string expected;
    for (const std::string& name : classes) expected += (expected.empty() ? "" : " or ") + name;
    reader.violation(part, "expected " + expected + ", found " + (index.contains(part) ? index[part].dump() : "nothing"));
  }
  for (const std::string& part : kOtherParts) reader.know(part);
  for (const auto& item : index.items()) {
    if (item.key().starts_with("_")) reader.know(item.key());
  }
  reader.finish(where);
}

SdPipeline empty_pipeline(const std::string& folder, const torch::TensorOptions& tensors) {
  check_model_index(folder);
  const auto config = [&](const char* part) { return folder + "/" + part + "/config.json"; };
  const std::string schedule = folder + "/scheduler/scheduler_config.json";
  SdPipeline pipeline;
  pipeline.denoiser = std::make_unique<SdDenoiser>(sd_unet_config_from_json(read_json_file(config("unet")), config("unet")),
                                                   sd_schedule_config_from_json(read_json_file(schedule), schedule), tensors);
  pipeline.vae = AutoencoderKl(autoencoder_kl_config_from_json(read_json_file(config("vae")), config("vae")), tensors);
  pipeline.text_encoder =
      ClipText(clip_text_config_from_json(read_json_file(config("text_encoder")), config("text_encoder")), tensors);
  pipeline.tokenizer = load_clip_tokenizer(folder + "/tokenizer");
  const ClipTextConfig& text = pipeline.text_encoder->config();
  const std::int64_t width = pipeline.denoiser->unet()->config().cross_attention_dim;
  if (text.hidden_size != width) {
    throw Error(ErrorCode::kMismatch, config("text_encoder") + ": hidden_size: expected " + std::to_string(width) +
                                          ", the U-Net's cross_attention_dim, found " + std::to_string(text.hidden_size));
  }
  if (pipeline.tokenizer->options().max_length > text.max_position_embeddings) {
    throw Error(ErrorCode::kMismatch, folder + "/tokenizer: model_max_length: expected at most " +
                                          std::to_string(text.max_position_embeddings) +
                                          ", the text encoder's max_position_embeddings, found " +
                                          std::to_string(pipeline.tokenizer->options().max_length));
  }
  for (const auto& [token, id] : pipeline.tokenizer->merges().vocabulary()) {
    if (id < text.vocab_size) continue;
    throw Error(ErrorCode::kMismatch, folder + "/tokenizer/vocab.json: token \"" + token + "\": expected an id below " +
                                          std::to_string(text.vocab_size) + ", the text encoder's vocab_size, found " +
                                          std::to_string(id));
  }
  return pipeline;
}

// Networks that are read for sampling; a trainer asks for gradients itself.
template <class Network>
void freeze(Network& network) {
  for (auto& parameter : network.parameters()) parameter.set_requires_grad(false);
}

// The wanted networks alone: what was reserved for the others has not been touched yet.
SdPipeline frozen_parts(SdPipeline pipeline, SdParts parts) {
  if (parts == SdParts::kOthers) {
    pipeline.denoiser.reset();
  } else {
    freeze(pipeline.denoiser->module());
  }
  if (parts == SdParts::kDenoiser) {
    pipeline.vae = AutoencoderKl(nullptr);
    pipeline.text_encoder = ClipText(nullptr);
  } else {
    freeze(*pipeline.vae);
    freeze(*pipeline.text_encoder);
  }
  return pipeline;
}

std::vector<TensorView> as_they_are(std::vector<TensorView> tensors) { return tensors; }

}  // namespace

std::unique_ptr<SdDenoiser> load_sd_denoiser(const std::string& unet_folder, const std::string& scheduler_folder,
                                             const torch::TensorOptions& tensors) {
  const std::string config = unet_folder + "/config.json", schedule = scheduler_folder + "/scheduler_config.json";
  auto denoiser = std::make_unique<SdDenoiser>(sd_unet_config_from_json(read_json_file(config), config),
                                               sd_schedule_config_from_json(read_json_file(schedule), schedule), tensors);
  freeze(denoiser->module());
  load(denoiser->module(), weights_path(unet_folder, kDiffusersWeights), as_they_are);
  return denoiser;
}

AutoencoderKl load_autoencoder_kl(const std::string& folder, const torch::TensorOptions& tensors) {
  const std::string config = folder + "/config.json";
  AutoencoderKl vae(autoencoder_kl_config_from_json(read_json_file(config), config), tensors);
  freeze(*vae);
  load(*vae, weights_path(folder, kDiffusersWeights), diffusers_vae_names);
  return vae;
}

std::string autoencoder_sha256(const AutoencoderKl& vae) {
  return sha256(to_diffusers_json(vae->config()).dump() + "\n" + safetensors_sha256(named_tensors(*vae), {}));
}

TinyAutoencoder load_tiny_autoencoder(const std::string& folder, const torch::TensorOptions& tensors) {
  const std::string config = folder + "/config.json";
  TinyAutoencoder network(tiny_autoencoder_config_from_json(read_json_file(config), config), tensors);
  freeze(*network);
  load(*network, weights_path(folder, kDiffusersWeights), as_they_are);
  return network;
}

ClipText load_clip_text(const std::string& folder, const torch::TensorOptions& tensors) {
  const std::string config = folder + "/config.json";
  ClipText network(clip_text_config_from_json(read_json_file(config), config), tensors);
  freeze(*network);
  load(*network, weights_path(folder, kTransformersWeights), clip_text_names);
  return network;
}

SdPipeline load_sd_pipeline(const std::string& folder, const torch::TensorOptions& tensors, SdParts parts) {
  SdPipeline pipeline = frozen_parts(empty_pipeline(folder, tensors), parts);
  if (pipeline.denoiser) load(pipeline.denoiser->module(), weights_path(folder + "/unet", kDiffusersWeights), as_they_are);
  if (pipeline.vae) load(*pipeline.vae, weights_path(folder + "/vae", kDiffusersWeights), diffusers_vae_names);
  if (pipeline.text_encoder) load(*pipeline.text_encoder, weights_path(folder + "/text_encoder", kTransformersWeights), clip_text_names);
  return pipeline;
}

SdPipeline load_ldm_file(const std::string& path, const std::string& like, const torch::TensorOptions& tensors, SdParts wanted) {
  SdPipeline whole = empty_pipeline(like, tensors);
  const SafetensorsFile file(path);
  const LdmParts parts = split_ldm(file.tensors(), whole.denoiser->unet()->config(), whole.vae->config());
  if (!parts.unknown.empty()) {
    std::string message = path + ": " + std::to_string(parts.unknown.size()) + " tensors belong to no part of Stable Diffusion 1.x";
    for (const std::string& name : parts.unknown) message += "\n  " + name + ": unexpected";
    throw Error(ErrorCode::kMismatch, message);
  }
  SdPipeline pipeline = frozen_parts(std::move(whole), wanted);
  const auto release = [&](std::span<const std::byte> part) { file.release(part); };
  if (pipeline.denoiser) load_weights(pipeline.denoiser->module(), parts.unet, path + " (model.diffusion_model)", release);
  if (pipeline.vae) load_weights(*pipeline.vae, parts.vae, path + " (first_stage_model)", release);
  if (pipeline.text_encoder) load_weights(*pipeline.text_encoder, parts.text, path + " (cond_stage_model.transformer)", release);
  return pipeline;
}

torch::Tensor embed_prompts(SdPipeline& pipeline, const std::vector<std::string>& prompts) {
  const torch::NoGradGuard no_grad;
  std::vector<torch::Tensor> rows;
  for (const std::string& prompt : prompts) rows.push_back(torch::tensor(pipeline.tokenizer->encode(prompt), torch::kInt64));
  const auto device = pipeline.text_encoder->parameters().front().device();
  return pipeline.text_encoder(torch::stack(rows).to(device)).to(torch::kCPU, torch::kFloat32).contiguous();
}

}  // namespace onestep
