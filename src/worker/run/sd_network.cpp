#include "worker/run/sd_network.h"

#include "common/config.h"
#include "common/error.h"
#include "common/hash.h"
#include "common/sealed_json.h"
#include "worker/run/clip_tokenizer_files.h"
#include "worker/tensors/flat_parameters.h"

namespace onestep {

using nlohmann::json;

json to_json(const SdNetwork& network) {
  return {{"class", "sd_unet"},
          {"unet", to_diffusers_json(network.unet)},
          {"scheduler", to_diffusers_json(network.schedule)},
          {"pipeline", {{"path", network.pipeline.path}, {"like", network.pipeline.like}, {"sha256", network.pipeline.sha256}}}};
}

bool is_sd_network(const json& network) { return network.is_object() && network.value("class", json()) == "sd_unet"; }

SdNetwork sd_network_from_json(const json& document, const std::string& where) {
  StrictObject fields(document, where, "/network");
  fields.require_text("class", "sd_unet");
  SdNetwork network;
  network.unet = sd_unet_config_from_json(fields.object("unet"), where + ": network/unet");
  network.schedule = sd_schedule_config_from_json(fields.object("scheduler"), where + ": network/scheduler");
  StrictObject pipeline(fields.object("pipeline"), where, "/network/pipeline");
  network.pipeline = {pipeline.text("path"), pipeline.text("like"), pipeline.sha256("sha256")};
  pipeline.finish();
  fields.finish();
  return network;
}

SdNetwork read_sd_network(const PipelineSource& source) {
  const std::string& folder = source.like.empty() ? source.path : source.like;
  const std::string unet = folder + "/unet/config.json", schedule = folder + "/scheduler/scheduler_config.json";
  return {sd_unet_config_from_json(read_json_file(unet), unet), sd_schedule_config_from_json(read_json_file(schedule), schedule), source};
}

SdPipeline load_pipeline(const PipelineSource& source, SdParts parts) {
  if (source.like.empty()) return load_sd_pipeline(source.path, torch::kFloat32, parts);
  return load_ldm_file(source.path, source.like, torch::kFloat32, parts);
}

std::string text_encoder_sha256(const SdPipeline& pipeline) {
  std::string facts = to_transformers_json(pipeline.text_encoder->config(), "float32").dump() + "\n" +
                      safetensors_sha256(named_tensors(*pipeline.text_encoder), {}) + "\n";
  for (const auto& [name, content] : clip_tokenizer_files(*pipeline.tokenizer)) facts += name + " " + sha256(content) + "\n";
  return sha256(facts);
}

SdPipeline load_other_parts(SdNetwork& network) {
  PipelineSource& source = network.pipeline;
  SdPipeline parts = load_pipeline(source, SdParts::kOthers);
  const std::string found = sha256(text_encoder_sha256(parts) + "\n" + to_diffusers_json(parts.vae->config()).dump() + "\n" +
                                   safetensors_sha256(named_tensors(*parts.vae), {}));
  if (source.sha256.empty()) source.sha256 = found;
  if (source.sha256 != found) {
    throw Error(ErrorCode::kMismatch, source.path + ": tokenizer, text encoder and autoencoder: expected those of digest " +
                                          source.sha256 + ", which the network was trained with, found " + found);
  }
  return parts;
}

}  // namespace onestep
