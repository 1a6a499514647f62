// Writes the folder that inference needs: weights, configuration, sixteen samples to check a reader by, digests, a card.

#include <span>

#include "common/durable_file.h"
#include "common/error.h"
#include "common/hash.h"
#include "common/safetensors_file.h"
#include "worker/run/jobs.h"
#include "worker/run/model_folder.h"
#include "worker/run/sample_noise.h"
#include "worker/sampling/sampler.h"
#include "worker/tensors/flat_parameters.h"

namespace onestep {
namespace {

constexpr std::int64_t kNumSamples = 16;
constexpr std::uint64_t kSampleSeed = 0;

std::string preconditioning_name(const std::string& preconditioner) {
  if (preconditioner == "iddpm") return "iDDPM";
  return preconditioner == "edm" ? "EDM" : preconditioner == "vp" ? "VP" : "VE";
}

std::string model_card(const LoadedModel& model, const std::string& digest) {
  const bool one_step = model.generator_sigma > 0;
  std::string card = "# " + std::string(one_step ? "One-step generator" : "Diffusion model") + "\n\n";
  card += "Network: `" + model.network.network_class + "` under " + preconditioning_name(model.network.preconditioner) +
          " preconditioning, " + std::to_string(model.network.image_channels) + " x " +
          std::to_string(model.network.image_size) + " x " + std::to_string(model.network.image_size) + " pixels, " +
          std::to_string(model.network.label_dim) + " classes; all options are in `config.json`.\n";
  card += "Weights: " + model.weights + ", after " + std::to_string(model.images) + " images; SHA-256 of `model.safetensors`: `" +
          digest + "`.\n\n";
  if (one_step) {
    card += "An image is one network call: x = D(sigma z; sigma, class) with sigma = `generator_sigma` of `config.json` and z "
            "standard normal noise; values in [-1, 1] after clamping.\n\n";
  }
  card += "```\nonestep sample --model . --count 16 --seed 0 --out grid.png\n```\n\n";
  card += "`samples.safetensors` holds noise, labels and images of the first sixteen samples of seed 0, to check another reader "
          "by. `SHA256SUMS` lists every file: `sha256sum -c SHA256SUMS`.\n";
  return card;
}

}  // namespace

JobResult run_export(const RunContext& context) {
  const auto& spec = std::get<ExportSpec>(context.spec.options);
  JobResult result;
  if (context.communicator.rank() != 0) return result;
  const LoadedModel model = load_model(spec.model, spec.weights);
  ModelConfig config;
  config.format = "onestep-export";
  config.network = model.network;
  config.kind = model.kind;
  config.weights = model.weights;
  config.generator_sigma = model.generator_sigma;
  config.images = model.images;
  const std::string digest = save_model(context.run, config, named_tensors(model.denoiser->module()));

  const SampleDraw draw = sample_draw(*model.denoiser, kSampleSeed, kNumSamples, -1);
  SampleOptions options;
  options.rows = SampleRows{kSampleSeed, 0};
  const torch::Tensor image = sample(*model.denoiser, sampler_of(model), draw.noise, draw.condition, options).contiguous();
  const auto span_of = [](const torch::Tensor& tensor) {
    return std::span<const std::byte>{static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()};
  };
  write_safetensors(context.run + "/samples.safetensors",
                    {{"noise", DType::kF32, draw.noise.sizes().vec(), span_of(draw.noise)},
                     {"image", DType::kF32, image.sizes().vec(), span_of(image)},
                     {"labels", DType::kI64, draw.labels.sizes().vec(), span_of(draw.labels)}},
                    {});
  write_file_durably(context.run + "/README.md", model_card(model, digest));
  std::string sums;
  for (const char* name : {"README.md", "config.json", "model.safetensors", "samples.safetensors"}) {
    sums += sha256_file(context.run + "/" + name) + "  " + name + "\n";
  }
  write_file_durably(context.run + "/SHA256SUMS", sums);
  result.digest = sha256(sums);
  result.result = {{"model_sha256", digest}, {"folder", context.run}};
  return result;
}

}  // namespace onestep
