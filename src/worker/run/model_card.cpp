#include "worker/run/model_card.h"

#include "common/checkpoint_manifest.h"
#include "common/durable_file.h"
#include "common/error.h"
#include "common/run_folder.h"

namespace onestep {
namespace {

// The folder of the checkpoint that tells of the model's training; "" if there is none.
std::string checkpoint_of(const std::string& path) {
  if (!file_exists(path + "/config.json") && file_exists(path + "/manifest.json")) return path;
  const auto checkpoints = list_checkpoints(checkpoints_folder(path));
  return checkpoints.empty() ? "" : checkpoints.back();
}

std::string data_of(const nlohmann::json& config) {
  std::string data;
  const auto add = [&data](const char* what, const nlohmann::json& digest) {
    if (digest.is_string()) data += (data.empty() ? "" : ", ") + std::string(what) + " of SHA-256 `" + digest.get<std::string>() + "`";
  };
  add("images", config.value(nlohmann::json::json_pointer("/dataset/path"), nlohmann::json()));
  add("real images", config.value(nlohmann::json::json_pointer("/dmd/gan/dataset/path"), nlohmann::json()));
  add("noise-image pairs", config.value("pairs", nlohmann::json()));
  add("prompts", config.value("prompts", nlohmann::json()));
  return data;
}

std::string metric_of(const LoadedModel& model, const std::string& evaluation) {
  const std::string where = outcome_file(evaluation);
  const auto outcome = read_outcome(where);
  if (!outcome || outcome->kind != "evaluate") {
    throw Error(ErrorCode::kNotFound, where + ": expected the outcome of an evaluate job, found " +
                                          (outcome ? "one of kind " + outcome->kind : std::string("none")));
  }
  const std::string judged = outcome->result.value("model_sha256", "nothing");
  if (judged != model.sha256) {
    throw Error(ErrorCode::kMismatch, where + ": model_sha256: expected " + model.sha256 + ", the exported model, found " + judged);
  }
  const nlohmann::json& result = outcome->result;
  return std::string(result.contains("fid") ? "FID " : "Fréchet distance ") + result.at("frechet").dump() + " on " +
         result.at("count").dump() + " images by the detector of SHA-256 `" + result.at("detector_sha256").get<std::string>() +
         "`; evaluation `" + outcome->digest + "`";
}

std::string preconditioning_name(const std::string& preconditioner) {
  if (preconditioner == "iddpm") return "iDDPM";
  return preconditioner == "edm" ? "EDM" : preconditioner == "vp" ? "VP" : "VE";
}

}  // namespace

ModelOrigin origin_of(const LoadedModel& model, const ExportSpec& spec) {
  ModelOrigin origin;
  origin.teacher = model.teacher_sha256;
  if (const std::string folder = checkpoint_of(model.path); !folder.empty()) {
    const CheckpointManifest manifest = read_checkpoint_manifest(folder, /*verify_files=*/false);
    origin.data = data_of(manifest.config);
    origin.steps = manifest.iteration;
  }
  if (!spec.evaluation.empty()) origin.metric = metric_of(model, spec.evaluation);
  return origin;
}

std::string model_card(const LoadedModel& model, const ModelOrigin& origin, const std::string& dtype, const std::string& digest) {
  const bool few_steps = !model.student_timesteps.empty(), one_step = model.generator_sigma > 0 && !few_steps;
  const std::string steps = std::to_string(model.student_timesteps.size());
  std::string card = "# " + (few_steps ? "Generator of " + steps + " steps" : one_step ? "One-step generator" : "Diffusion model") + "\n\n";
  card += "Network: `" + model.network.network_class + "` under " + preconditioning_name(model.network.preconditioner) +
          " preconditioning, " + std::to_string(model.network.image_channels) + " x " +
          std::to_string(model.network.image_size) + " x " + std::to_string(model.network.image_size) + " pixels, " +
          std::to_string(model.network.label_dim) + " classes; all options are in `config.json`.\n";
  card += "Weights: " + model.weights + " in " + dtype + ", after " + std::to_string(model.images) +
          " images; SHA-256 of `model.safetensors`: `" + digest + "`.\n\n";
  const auto line = [&card](const char* what, const std::string& value) {
    if (!value.empty()) card += std::string("- ") + what + ": " + value + "\n";
  };
  line("Teacher", origin.teacher.empty() ? "" : "SHA-256 `" + origin.teacher + "`");
  line("Data", origin.data);
  line("Training steps", origin.steps > 0 ? std::to_string(origin.steps) : "");
  line("Metric", origin.metric);
  if (!card.ends_with("\n\n")) card += "\n";
  if (one_step) {
    card += "An image is one network call: x = D(sigma z; sigma, class) with sigma = `generator_sigma` of `config.json` and z "
            "standard normal noise; values in [-1, 1] after clamping.\n\n";
  }
  if (few_steps) {
    card += "An image is " + steps + " network calls, at sigma = " + nlohmann::json(model.student_timesteps).dump() +
            " (`student_timesteps` of `config.json`): x = D(sigma z; sigma, class) with standard normal noise z; then, for each next "
            "sigma, x = D(x + sigma z'; sigma, class) with fresh noise z'; values in [-1, 1] after clamping.\n\n";
  }
  card += "```\nonestep sample --model . --count 16 --seed 0 --out grid.png\n```\n\n";
  card += "`samples.safetensors` holds noise, labels and images of the first sixteen samples of seed 0";
  if (few_steps) card += ", and as `noise_1`, ... the fresh noise behind each step";
  card += ", to check another reader by. `SHA256SUMS` lists every file: `sha256sum -c SHA256SUMS`.\n";
  return card;
}

}  // namespace onestep
