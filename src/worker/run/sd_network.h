// A text-to-image network as load_model() gives it: its options, and where the other parts of its pipeline are.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "worker/models/sd_denoiser.h"
#include "worker/run/diffusers_folder.h"

namespace onestep {

// A diffusers folder, or a single file of the original names with a folder `like`.
struct PipelineSource {
  std::string path, like;
  std::string sha256;  // of tokenizer, text encoder and autoencoder; "": not known yet
};

struct SdNetwork {
  SdUnetConfig unet;
  SdScheduleConfig schedule;
  PipelineSource pipeline;
};

// The object "network" of a config.json or a checkpoint's manifest: {"class": "sd_unet", "unet", "scheduler", "pipeline"}, the first two
// in diffusers' words. Strict. Errors: ConfigError, kCorrupt naming `where`.
nlohmann::json to_json(const SdNetwork& network);
bool is_sd_network(const nlohmann::json& network);
SdNetwork sd_network_from_json(const nlohmann::json& document, const std::string& where);

// The options alone of a pipeline's network. Errors: kNotFound, ConfigError.
SdNetwork read_sd_network(const PipelineSource& source);
SdPipeline load_pipeline(const PipelineSource& source, SdParts parts);
// Names tokenizer and text encoder by their content, whatever files they came from: equal names, equal embeddings.
std::string text_encoder_sha256(const SdPipeline& pipeline);
// Tokenizer, text encoder and autoencoder of the network's pipeline. Compares their digest with the one that the network knows, or
// makes it known. Errors: kNotFound, kMismatch naming the pipeline.
SdPipeline load_other_parts(SdNetwork& network);

}  // namespace onestep
