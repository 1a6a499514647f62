// Trains a Stable Diffusion U-Net on latents and prompts (Rombach et al. 2022, Eq. 3), the prompt dropped now and then for guidance
// (Ho and Salimans 2022): a teacher in the layout of diffusers.
#include <memory>
#include <utility>
#include <vector>

#include "common/config.h"
#include "common/error.h"
#include "worker/data/global_order.h"
#include "worker/data/latent_dataset.h"
#include "worker/data/prompt_embeddings.h"
#include "worker/dmd/losses.h"
#include "worker/run/diffusers_export.h"
#include "worker/run/jobs.h"
#include "worker/run/latents_fit.h"
#include "worker/run/one_network_training.h"
#include "worker/run/sd_network.h"
#include "worker/tensors/keyed_random.h"

namespace onestep {
namespace {

std::unique_ptr<SdDenoiser> untrained_denoiser(const SdNetwork& network, std::uint64_t seed) {
  auto denoiser = std::make_unique<SdDenoiser>(network.unet, network.schedule);
  initialize_raw_layers(denoiser->module(), seed, "unet.");
  return denoiser;
}

class TextTeacherTraining final : public OneNetworkTraining {
 public:
  TextTeacherTraining(const RunContext& context, const TrainTextTeacherSpec& spec, SdNetwork network, const LatentDataset& latents,
                      const PromptEmbeddings& prompts, std::unique_ptr<SdDenoiser> denoiser)
      : OneNetworkTraining(context, denoiser->module(), one_network_options("teacher", spec, {"loss"})),
        spec_(spec),
        network_(std::move(network)),
        latents_(latents),
        text_(prompts.text(torch::arange(prompts.size()))),
        null_text_(prompts.null_text()),
        denoiser_(std::move(denoiser)) {
    denoiser_->recompute_in_backward(context.spec.activation_checkpointing);
  }

  [[nodiscard]] nlohmann::json description() const override {
    return {{"network", to_json(network_)}, {"generator_sigma", 0.0}, {"delivered_network", "teacher"}};
  }

  // The delivered weights are the average's; the network goes on as them. Collective.
  std::unique_ptr<SdDenoiser> finished() {
    adopt_average();
    return std::move(denoiser_);
  }

 private:
  // t uniform over the steps, the schedule's weight: for a network that predicts epsilon, the plain MSE of epsilon.
  std::vector<torch::Tensor> micro_batch_losses(std::int64_t iteration, std::int64_t first, std::int64_t rows) override {
    std::vector<std::int64_t> picked;
    for (std::int64_t row = 0; row < rows; ++row) {
      picked.push_back(ordered_index(context().spec.seed, latents_.size(), iteration * spec_.batch + first + row));
    }
    const auto index = torch::tensor(picked);
    const auto x = latents_.latents.index_select(0, index);
    const auto key = [&](RandomStream stream) { return DrawKey{context().spec.seed, stream, static_cast<std::uint32_t>(iteration)}; };
    const auto dropped = keyed_uniform(key(RandomStream::kTextDropout), first, rows) < spec_.text_dropout;
    const auto text = torch::where(dropped.view({rows, 1, 1}), null_text_,
                                   text_.index_select(0, latents_.labels.index_select(0, index)));
    const auto t = keyed_integer(key(RandomStream::kTrainSigma), first, rows, denoiser_->last_step() + 1).to(torch::kFloat32);
    const auto epsilon = keyed_normal(key(RandomStream::kTrainNoise), first, rows, x.sizes().slice(1));
    const auto mu = denoiser_->denoise(diffuse(denoiser_->schedule(), x, epsilon, t), t, {{}, text});
    return {denoising_loss(denoiser_->schedule(), mu, x, t, spec_.batch)};
  }

  const TrainTextTeacherSpec& spec_;
  SdNetwork network_;
  const LatentDataset& latents_;
  torch::Tensor text_, null_text_;  // [prompts,T,D], [1,T,D]
  std::unique_ptr<SdDenoiser> denoiser_;
};

void check_sources_fit(const TrainTextTeacherSpec& spec, const SdNetwork& network, const SdPipeline& parts, const LatentDataset& latents,
                       const PromptEmbeddings& prompts) {
  if (const std::string encoder = text_encoder_sha256(parts), found = prompts.info().text_encoder_sha256; encoder != found) {
    throw Error(ErrorCode::kMismatch, prompts.path() + ": text_encoder_sha256 (that of " + spec.base + "): expected " + encoder +
                                          ", found " + found);
  }
  const ImageShape shape{network.unet.in_channels, network.unet.sample_size, network.unet.sample_size};
  check_latents_fit(latents, spec.latents, {shape, autoencoder_sha256(parts.vae), spec.base, &prompts});
}

}  // namespace

JobResult run_train_text_teacher(const RunContext& context) {
  const auto& spec = std::get<TrainTextTeacherSpec>(context.spec.options);
  SdNetwork network = read_sd_network({spec.base, "", ""});
  SdPipeline parts = load_other_parts(network);
  const LatentDataset latents = read_latents(spec.latents + "/" + kLatentFileName);
  const PromptEmbeddings prompts(spec.prompts);
  check_sources_fit(spec, network, parts, latents, prompts);
  if (context.communicator.rank() == 0) prompts.verify();
  nlohmann::json config = bit_relevant_config(context.spec);
  config["base"] = {{"unet", to_diffusers_json(network.unet)}, {"scheduler", to_diffusers_json(network.schedule)},
                    {"sha256", network.pipeline.sha256}};
  config["latents"] = latents.digest();
  config["prompts"] = prompts.info().digest();
  TextTeacherTraining training(context, spec, network, latents, prompts, untrained_denoiser(network, context.spec.seed));
  const TrainingOutcome outcome = train(context, config, training);
  parts.denoiser = training.finished();
  JobResult result;
  if (context.communicator.rank() == 0) {
    export_teacher_folder(context.run, parts);
    result.digest = safetensors_sha256(named_tensors(parts.denoiser->module()), {});
    result.result = {{"images", training.images_after(training.num_iterations())},
                     {"images_per_second", outcome.images_per_second},
                     {"model_sha256", result.digest}};
  }
  return result;
}

}  // namespace onestep
