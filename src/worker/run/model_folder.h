// A network on disk: config.json beside model.safetensors; and the average or raw weights inside a checkpoint.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "common/job_spec.h"
#include "common/safetensors_file.h"
#include "worker/diffusion/denoiser.h"
#include "worker/run/sd_network.h"
#include "worker/tensors/torch.h"

namespace onestep {

// A loaded denoiser and what its folder says of it.
struct LoadedModel {
  std::unique_ptr<Denoiser> denoiser;
  NetworkSpec network;            // of a network of sigma
  std::optional<SdNetwork> sd;    // of a text-to-image network; `denoiser` is then an SdDenoiser
  std::string sha256;             // of model.safetensors; for a checkpoint or a pipeline, of the same tensors written as one
  std::string kind;               // job kind that made it: "train_teacher", "distill"; "" for a pipeline from elsewhere
  std::string weights;            // "ema" or "raw"
  double generator_sigma = 0;     // a generator's fixed t: sigma, or the step of a text-to-image one; 0 for a teacher
  std::vector<double> student_timesteps;  // of a generator of several steps: its t, descending, generator_sigma first; else empty
  std::int64_t images = 0;        // images it was trained on
  std::string teacher_sha256;     // of a generator, where its folder says
  std::string path;
};

// What config.json says under "network".
nlohmann::json network_json(const LoadedModel& model);

// What goes into config.json.
struct ModelConfig {
  std::string format = "onestep-model";  // or "onestep-export"
  nlohmann::json network;         // network_json()
  std::string kind;
  std::string weights = "ema";
  std::string dtype = "fp32";     // of the parameters
  double generator_sigma = 0;
  std::vector<double> student_timesteps;  // for a generator of several steps
  std::int64_t images = 0;
  std::string teacher_sha256;     // for a generator
};

// `path`: a run or export folder (weights must be "ema": only the average is in it), a checkpoint folder, a diffusers pipeline folder, or
// with `like`, a pipeline folder, a single file of Stable Diffusion 1.x. Digest-checked, strict.
// Errors: kNotFound, kCorrupt, kMismatch; ConfigError for a pipeline's configuration.
LoadedModel load_model(const std::string& path, const std::string& weights, const std::string& like = "");

// Writes model.safetensors, then config.json (with the model's digest), durably; returns the digest. Deterministic bytes.
std::string save_model(const std::string& folder, const ModelConfig& config, const std::vector<TensorView>& tensors);

// config.json of a folder, strictly read for the common fields. Errors: kNotFound, kCorrupt.
nlohmann::json read_model_config(const std::string& folder);

// "fp32", "bf16" or "fp16", as job specs and config.json have it. Errors: kMismatch naming `where`.
DType weights_dtype(const std::string& name, const std::string& where);

}  // namespace onestep
