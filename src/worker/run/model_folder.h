// A network on disk: config.json beside model.safetensors; and the average or raw weights inside a checkpoint.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "common/job_spec.h"
#include "common/safetensors_file.h"
#include "worker/diffusion/denoiser.h"
#include "worker/tensors/torch.h"

namespace onestep {

// A loaded denoiser and what its folder says of it.
struct LoadedModel {
  std::unique_ptr<Denoiser> denoiser;
  NetworkSpec network;
  std::string sha256;             // of model.safetensors; for a checkpoint, of the same tensors written as one
  std::string kind;               // job kind that made it: "train_teacher", "distill"
  std::string weights;            // "ema" or "raw"
  double generator_sigma = 0;     // 0 for a teacher
  std::int64_t images = 0;        // images it was trained on
  std::string path;
};

// What goes into config.json.
struct ModelConfig {
  std::string format = "onestep-model";  // or "onestep-export"
  NetworkSpec network;
  std::string kind;
  std::string weights = "ema";
  double generator_sigma = 0;
  std::int64_t images = 0;
  std::string teacher_sha256;     // for a generator
};

// `folder`: a run or export folder (weights must be "ema": only the average is in it) or a checkpoint folder. Digest-checked, strict.
// Errors: kNotFound, kCorrupt, kMismatch.
LoadedModel load_model(const std::string& folder, const std::string& weights);

// Writes model.safetensors, then config.json (with the model's digest), durably; returns the digest. Deterministic bytes.
std::string save_model(const std::string& folder, const ModelConfig& config, const std::vector<TensorView>& tensors);

// config.json of a folder, strictly read for the common fields. Errors: kNotFound, kCorrupt.
nlohmann::json read_model_config(const std::string& folder);

}  // namespace onestep
