#include "worker/run/model_folder.h"

#include <algorithm>
#include <functional>
#include <map>

#include "common/checkpoint_manifest.h"
#include "common/config.h"
#include "common/durable_file.h"
#include "common/error.h"
#include "common/hash.h"
#include "common/sealed_json.h"
#include "worker/models/model_factory.h"
#include "worker/run/checkpoint_buffers.h"
#include "worker/run/module_buffers.h"
#include "worker/tensors/flat_parameters.h"

namespace onestep {
namespace {

template <class T>
T field(const nlohmann::json& json, const char* key, const std::string& where) {
  try {
    return json.at(key).get<T>();
  } catch (const nlohmann::json::exception& error) {
    throw Error(ErrorCode::kCorrupt, where + ": field \"" + key + "\": " + error.what());
  }
}

// A generator's t, where it has several: descending from generator_sigma. `facts`: config.json, a manifest's state or onestep.json.
std::vector<double> student_timesteps(const nlohmann::json& facts, double generator_sigma, const std::string& where) {
  if (!facts.contains("student_timesteps")) return {};
  auto t = field<std::vector<double>>(facts, "student_timesteps", where);
  const bool descends = std::adjacent_find(t.begin(), t.end(), std::less_equal<>()) == t.end();
  if (t.size() < 2 || !descends || t.front() != generator_sigma || t.back() < 0) {
    throw Error(ErrorCode::kCorrupt, where + ": field \"student_timesteps\": expected two numbers or more, descending from " +
                                         nlohmann::json(generator_sigma).dump() + ", found " + nlohmann::json(t).dump());
  }
  return t;
}

// The network's constants among its buffers: a file must agree with them. Copies, by name.
std::map<std::string, torch::Tensor> resample_filters(const torch::nn::Module& module) {
  std::map<std::string, torch::Tensor> filters;
  for (const auto& item : module.named_buffers()) {
    if (item.key().ends_with("resample_filter")) filters[item.key()] = item.value().clone();
  }
  return filters;
}

// The network that `description` names, not loaded yet.
void make_network(LoadedModel& model, const nlohmann::json& description, const std::string& where) {
  if (is_sd_network(description)) {
    model.sd = sd_network_from_json(description, where);
    model.denoiser = std::make_unique<SdDenoiser>(model.sd->unet, model.sd->schedule);
    for (auto& parameter : model.denoiser->module().parameters()) parameter.set_requires_grad(false);
  } else {
    model.network = network_spec_from_json(description, where);
    model.denoiser = make_denoiser(model.network, 0);
  }
}

void check_weights(const LoadedModel& model, const std::string& wanted) {
  if (wanted == model.weights) return;
  throw Error(ErrorCode::kMismatch, model.path + ": expected \"" + wanted + "\" weights, found \"" + model.weights +
                                        "\"; raw weights are in checkpoint folders");
}

// A pipeline in its own files. One that Onestep exported says in onestep.json what its network is.
LoadedModel load_from_pipeline(const std::string& path, const std::string& like, const std::string& weights) {
  LoadedModel model;
  model.path = path;
  SdPipeline pipeline = load_pipeline({path, like, ""}, SdParts::kDenoiser);
  model.sd = SdNetwork{pipeline.denoiser->unet()->config(), pipeline.denoiser->config(), {path, like, ""}};
  model.denoiser = std::move(pipeline.denoiser);
  model.sha256 = safetensors_sha256(named_tensors(model.denoiser->module()), {});
  const std::string origin = path + "/onestep.json";
  if (!like.empty() || !file_exists(origin)) {
    model.weights = "ema";
    check_weights(model, weights);
    return model;
  }
  nlohmann::json document;
  try {
    document = parse_json(read_file(origin), origin);
  } catch (const ConfigError& error) {
    throw Error(ErrorCode::kCorrupt, error.what());
  }
  StrictObject fields(document, origin, "");
  fields.require_text("format", "onestep-export");
  fields.require_integer("format_version", 1);
  model.kind = fields.text("kind");
  model.generator_sigma = static_cast<double>(fields.integer("generator_timestep", 0));
  if (document.contains("student_timesteps")) {
    model.student_timesteps = student_timesteps(document, model.generator_sigma, origin);
    fields.any("student_timesteps");
  }
  model.images = fields.integer("images", 0);
  model.teacher_sha256 = fields.sha256("teacher_sha256");
  model.weights = fields.text("weights");
  check_weights(model, weights);
  const std::string file = path + "/unet/diffusion_pytorch_model.safetensors";
  const std::string expected = fields.sha256("unet_sha256"), found = sha256_file(file);
  if (found != expected) throw Error(ErrorCode::kCorrupt, file + ": expected SHA-256 " + expected + " (onestep.json), found " + found);
  fields.finish();
  return model;
}

LoadedModel load_from_folder(const std::string& folder, const std::string& weights) {
  const std::string where = folder + "/config.json";
  const nlohmann::json config = read_model_config(folder);
  LoadedModel model;
  model.path = folder;
  model.kind = field<std::string>(config, "kind", where);
  model.weights = field<std::string>(config, "weights", where);
  model.generator_sigma = field<double>(config, "generator_sigma", where);
  model.student_timesteps = student_timesteps(config, model.generator_sigma, where);
  model.images = field<std::int64_t>(config, "images", where);
  if (config.contains("teacher_sha256")) model.teacher_sha256 = field<std::string>(config, "teacher_sha256", where);
  const std::string dtype = config.contains("dtype") ? field<std::string>(config, "dtype", where) : "fp32";
  check_weights(model, weights);
  const std::string file = folder + "/model.safetensors";
  model.sha256 = sha256_file(file);
  const auto expected = field<std::string>(config, "model_sha256", where);
  if (model.sha256 != expected) {
    throw Error(ErrorCode::kCorrupt,
                file + ": expected SHA-256 " + expected + " (config.json), found " + model.sha256);
  }
  make_network(model, field<nlohmann::json>(config, "network", where), where);
  const auto filters = resample_filters(model.denoiser->module());
  load_parameters(model.denoiser->module(), SafetensorsFile(file), weights_dtype(dtype, where + ": dtype"));
  for (const auto& [name, filter] : resample_filters(model.denoiser->module())) {
    if (torch::equal(filter, filters.at(name))) continue;
    throw Error(ErrorCode::kMismatch, file + ": " + name + ": expected the filter that config.json names, found another");
  }
  return model;
}

LoadedModel load_from_checkpoint(const std::string& folder, const std::string& weights) {
  CheckpointManifest manifest = read_checkpoint_manifest(folder, /*verify_files=*/true);
  const std::string where = folder + "/manifest.json";
  LoadedModel model;
  model.path = folder;
  model.kind = manifest.kind;
  model.weights = weights;
  model.images = manifest.images;
  make_network(model, field<nlohmann::json>(manifest.state, "network", where), where);
  model.generator_sigma = field<double>(manifest.state, "generator_sigma", where);
  model.student_timesteps = student_timesteps(manifest.state, model.generator_sigma, where);
  if (manifest.state.contains("teacher_sha256")) model.teacher_sha256 = field<std::string>(manifest.state, "teacher_sha256", where);
  const auto network = field<std::string>(manifest.state, "delivered_network", where);
  const auto manifest_buffers = manifest.state.value("buffers", nlohmann::json::object());
  const CheckpointBuffers buffers(folder, std::move(manifest));
  const std::string buffer = network + (weights == "ema" ? ".ema" : ".parameters");
  FlatParameters flat(model.denoiser->module(), 1, /*trainable=*/false);
  if (buffers.length(buffer) < flat.length()) {
    throw Error(ErrorCode::kMismatch, where + ": buffer \"" + buffer + "\": expected at least " +
                                          std::to_string(flat.length()) + " elements, found " +
                                          std::to_string(buffers.length(buffer)));
  }
  flat.values().copy_(buffers.read(buffer, 0, flat.length()));
  load_buffers(model.denoiser->module(), manifest_buffers, where);
  model.sha256 = safetensors_sha256(named_tensors(model.denoiser->module()), {});
  return model;
}

}  // namespace

nlohmann::json read_model_config(const std::string& folder) {
  const std::string where = folder + "/config.json";
  nlohmann::json config;
  try {
    config = parse_json(read_file(where), where);
  } catch (const ConfigError& error) {
    throw Error(ErrorCode::kCorrupt, error.what());
  }
  const auto format = field<std::string>(config, "format", where);
  if (format != "onestep-model" && format != "onestep-export" && format != "onestep-detector") {
    throw Error(ErrorCode::kCorrupt, where + ": field \"format\": expected a Onestep model, found \"" + format + "\"");
  }
  const auto version = field<std::int64_t>(config, "format_version", where);
  if (version != 1) {
    throw Error(ErrorCode::kMismatch,
                where + ": field \"format_version\": expected 1, found " + std::to_string(version));
  }
  return config;
}

nlohmann::json network_json(const LoadedModel& model) { return model.sd ? to_json(*model.sd) : to_json(model.network); }

DType weights_dtype(const std::string& name, const std::string& where) {
  if (name == "fp32") return DType::kF32;
  if (name == "bf16") return DType::kBF16;
  if (name == "fp16") return DType::kF16;
  throw Error(ErrorCode::kMismatch, where + ": expected fp32, bf16 or fp16, found \"" + name + "\"");
}

LoadedModel load_model(const std::string& folder, const std::string& weights, const std::string& like) {
  if (!like.empty() || file_exists(folder + "/model_index.json")) return load_from_pipeline(folder, like, weights);
  if (file_exists(folder + "/manifest.json") && !file_exists(folder + "/config.json")) {
    return load_from_checkpoint(folder, weights);
  }
  if (!file_exists(folder + "/config.json")) {
    throw Error(ErrorCode::kNotFound, folder + ": expected a model folder (config.json, model.safetensors), a "
                                               "checkpoint folder (manifest.json) or a diffusers pipeline (model_index.json), "
                                               "found none of them");
  }
  return load_from_folder(folder, weights);
}

std::string save_model(const std::string& folder, const ModelConfig& config,
                       const std::vector<TensorView>& tensors) {
  create_folders_durably(folder);
  const std::string digest = write_safetensors(folder + "/model.safetensors", tensors, {});
  nlohmann::json json = {{"format", config.format},
                         {"format_version", 1},
                         {"network", config.network},
                         {"kind", config.kind},
                         {"weights", config.weights},
                         {"generator_sigma", config.generator_sigma},
                         {"sampler", !(config.generator_sigma > 0) ? "heun" : config.student_timesteps.empty() ? "one_step" : "few_step"},
                         {"images", config.images},
                         {"model_sha256", digest}};
  if (!config.student_timesteps.empty()) json["student_timesteps"] = config.student_timesteps;
  if (config.dtype != "fp32") json["dtype"] = config.dtype;
  if (!config.teacher_sha256.empty()) json["teacher_sha256"] = config.teacher_sha256;
  write_file_durably(folder + "/config.json", json.dump(2) + "\n");
  return digest;
}

}  // namespace onestep
