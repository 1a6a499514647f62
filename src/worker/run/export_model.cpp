// Writes the folder that inference needs: weights, configuration, samples to check a reader by, digests, a card.
#include <span>
#include <string>
#include <vector>

#include "common/durable_file.h"
#include "common/error.h"
#include "common/hash.h"
#include "common/safetensors_file.h"
#include "worker/run/diffusers_export.h"
#include "worker/run/jobs.h"
#include "worker/run/model_card.h"
#include "worker/run/model_folder.h"
#include "worker/run/sample_noise.h"
#include "worker/sampling/few_step.h"
#include "worker/sampling/sampler.h"
#include "worker/tensors/flat_parameters.h"
#include "worker/tensors/weight_type.h"

namespace onestep {
namespace {

constexpr std::int64_t kNumSamples = 16;
constexpr std::uint64_t kSampleSeed = 0;

std::span<const std::byte> bytes_of_tensor(const torch::Tensor& tensor) {
  return {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()};
}

std::string write_digests(const std::string& folder, const std::vector<std::string>& names) {
  std::string sums;
  for (const std::string& name : names) sums += sha256_file(folder + "/" + name) + "  " + name + "\n";
  write_file_durably(folder + "/SHA256SUMS", sums);
  return sha256(sums);
}

// The parameters as `dtype`, buffers as they are; the network goes on with what is left of its parameters after rounding.
struct RoundedState {
  std::vector<torch::Tensor> kept;
  std::vector<TensorView> views;
};

RoundedState round_state(torch::nn::Module& module, DType dtype) {
  RoundedState state;
  state.views = named_tensors(module);  // parameters first
  if (dtype == DType::kF32) return state;
  const torch::NoGradGuard no_grad;
  std::size_t place = 0;
  for (auto& parameter : module.parameters()) {
    state.kept.push_back(parameter.to(weight_type(dtype).value()).contiguous());
    parameter.copy_(state.kept.back());
    TensorView& view = state.views[place++];
    view.dtype = dtype;
    view.bytes = bytes_of_tensor(state.kept.back());
  }
  return state;
}

JobResult export_sigma_network(const RunContext& context, const ExportSpec& spec, const LoadedModel& model) {
  if (spec.format != "folder") {
    throw Error(ErrorCode::kMismatch, "format: expected folder for " + model.path + ", a network without a pipeline, found " + spec.format);
  }
  ModelConfig config;
  config.format = "onestep-export";
  config.network = network_json(model);
  config.kind = model.kind;
  config.weights = model.weights;
  config.dtype = spec.dtype;
  config.generator_sigma = model.generator_sigma;
  config.student_timesteps = model.student_timesteps;
  config.images = model.images;
  const ModelOrigin origin = origin_of(model, spec);
  const RoundedState state = round_state(model.denoiser->module(), weights_dtype(spec.dtype, "dtype"));
  const std::string digest = save_model(context.run, config, state.views);

  const SampleDraw draw = sample_draw(*model.denoiser, kSampleSeed, kNumSamples, -1);
  SampleOptions options;
  options.rows = SampleRows{kSampleSeed, 0};
  const torch::Tensor image = sample(*model.denoiser, sampler_of(model), draw.noise, draw.condition, options).contiguous();
  std::vector<TensorView> samples = {{"noise", DType::kF32, draw.noise.sizes().vec(), bytes_of_tensor(draw.noise)},
                                     {"image", DType::kF32, image.sizes().vec(), bytes_of_tensor(image)},
                                     {"labels", DType::kI64, draw.labels.sizes().vec(), bytes_of_tensor(draw.labels)}};
  std::vector<torch::Tensor> noises;
  for (std::size_t i = 1; i < model.student_timesteps.size(); ++i) {
    noises.push_back(few_step_noise(*options.rows, i - 1, draw.noise.sizes()));
    samples.push_back({"noise_" + std::to_string(i), DType::kF32, noises.back().sizes().vec(), bytes_of_tensor(noises.back())});
  }
  write_safetensors(context.run + "/samples.safetensors", samples, {});
  write_file_durably(context.run + "/README.md", model_card(model, origin, spec.dtype, digest));
  JobResult result;
  result.digest = write_digests(context.run, {"README.md", "config.json", "model.safetensors", "samples.safetensors"});
  result.result = {{"model_sha256", digest}, {"folder", context.run}};
  return result;
}

JobResult export_text_network(const RunContext& context, const ExportSpec& spec, LoadedModel model) {
  if (!(model.generator_sigma > 0)) {
    throw Error(ErrorCode::kMismatch, model.path + ": expected a distilled generator to export, found a teacher");
  }
  const DType dtype = weights_dtype(spec.dtype, "dtype");
  JobResult result;
  if (spec.format == "unet_file") {
    const std::string digest =
        export_unet_file(context.run + "/unet.safetensors", dynamic_cast<SdDenoiser&>(*model.denoiser), dtype);
    result.digest = write_digests(context.run, {"unet.safetensors"});
    result.result = {{"model_sha256", model.sha256}, {"file_sha256", digest}, {"folder", context.run}};
    return result;
  }
  const ModelOrigin origin = origin_of(model, spec);
  SdPipeline pipeline = load_other_parts(*model.sd);
  pipeline.denoiser.reset(dynamic_cast<SdDenoiser*>(model.denoiser.release()));
  SdExportOptions options;
  options.dtype = dtype;
  options.card = {origin.teacher.empty() ? "" : "SHA-256 of its U-Net's tensors `" + origin.teacher + "`", origin.data, origin.metric,
                  origin.steps, model.images};
  options.student_timesteps = model.student_timesteps;
  options.origin = {{"format", "onestep-export"},
                    {"format_version", 1},
                    {"kind", model.kind},
                    {"weights", model.weights},
                    {"generator_timestep", static_cast<std::int64_t>(model.generator_sigma)},
                    {"images", model.images},
                    {"teacher_sha256", model.teacher_sha256}};
  if (!model.student_timesteps.empty()) options.origin["student_timesteps"] = model.student_timesteps;
  result.digest = export_diffusers_folder(context.run, pipeline, options);
  result.result = {{"model_sha256", model.sha256}, {"folder", context.run}};
  return result;
}

}  // namespace

JobResult run_export(const RunContext& context) {
  const auto& spec = std::get<ExportSpec>(context.spec.options);
  if (context.communicator.rank() != 0) return {};
  LoadedModel model = load_model(spec.model, spec.weights);
  return model.sd ? export_text_network(context, spec, std::move(model)) : export_sigma_network(context, spec, model);
}

}  // namespace onestep
