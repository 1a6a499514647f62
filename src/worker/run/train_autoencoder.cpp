// Trains the autoencoder of a latent diffusion model (Rombach et al. 2022, Sec. 3.1), without perceptual and adversarial terms.
#include <cmath>
#include <utility>
#include <vector>

#include "common/config.h"
#include "common/durable_file.h"
#include "worker/data/image_dataset.h"
#include "worker/data/ordered_images.h"
#include "worker/models/autoencoder_kl.h"
#include "worker/run/diffusers_export.h"
#include "worker/run/diffusers_folder.h"
#include "worker/run/encode_images.h"
#include "worker/run/jobs.h"
#include "worker/run/one_network_training.h"
#include "worker/tensors/keyed_random.h"

namespace onestep {
namespace {

constexpr std::int64_t kScaleRows = 16;  // images a network call when the latents' scale is measured

AutoencoderKl untrained_autoencoder(const AutoencoderKlConfig& config, std::uint64_t seed) {
  AutoencoderKl vae(config);
  initialize_raw_layers(*vae, seed, "vae.");
  return vae;
}

class AutoencoderTraining final : public OneNetworkTraining {
 public:
  AutoencoderTraining(const RunContext& context, const TrainAutoencoderSpec& spec, const ImageDataset& dataset, AutoencoderKl vae)
      : OneNetworkTraining(context, *vae, one_network_options("autoencoder", spec, {"loss", "loss_reconstruction", "loss_kl"})),
        spec_(spec),
        dataset_(dataset),
        vae_(std::move(vae)) {
    vae_->recompute_in_backward(context.spec.activation_checkpointing);
  }

  [[nodiscard]] nlohmann::json description() const override {
    return {{"autoencoder", to_diffusers_json(vae_->config())}, {"delivered_network", "autoencoder"}};
  }

  // The delivered weights are the average's; the network goes on as them. Collective.
  AutoencoderKl finished() {
    adopt_average();
    return vae_;
  }

 private:
  std::vector<torch::Tensor> micro_batch_losses(std::int64_t iteration, std::int64_t first, std::int64_t rows) override {
    const auto x = ordered_images({dataset_.images(), dataset_.labels()}, context().spec.seed, RandomStream::kOrder, iteration * spec_.batch + first, rows).images;
    const LatentPosterior q = vae_->encode(x);
    const DrawKey key{context().spec.seed, RandomStream::kPosteriorNoise, static_cast<std::uint32_t>(iteration)};
    const auto difference = vae_->decode(q.sample(keyed_normal(key, first, rows, q.mean.sizes().slice(1)))) - x;
    const auto error = spec_.loss == "l1" ? difference.abs() : difference.square();
    const auto kl = 0.5 * (q.mean.square() + q.logvar.exp() - 1 - q.logvar);
    // Over a sample's elements and the global batch.
    const auto mean = [&](const torch::Tensor& values) {
      return values.sum() / static_cast<double>(spec_.batch * (values.numel() / rows));
    };
    const auto reconstruction = mean(error), divergence = mean(kl);
    return {reconstruction + spec_.kl_weight * divergence, reconstruction, divergence};
  }

  const TrainAutoencoderSpec& spec_;
  const ImageDataset& dataset_;
  AutoencoderKl vae_;
};

// The factor that brings the images' latents to a standard deviation of 1, as Rombach et al. choose it.
double scaling_factor_of(AutoencoderKl& vae, const ImageDataset& dataset) {
  const auto z = posterior_means(vae, dataset, kScaleRows, [](std::int64_t) {}).to(torch::kFloat64);
  return 1 / (z - z.mean()).square().mean().sqrt().item<double>();
}

}  // namespace

JobResult run_train_autoencoder(const RunContext& context) {
  const auto& spec = std::get<TrainAutoencoderSpec>(context.spec.options);
  const std::string where = spec.config + "/config.json";
  AutoencoderKlConfig options = autoencoder_kl_config_from_json(read_json_file(where), where);
  const ImageDataset dataset(spec.dataset);
  check_images_fit(options, dataset, spec.dataset.path);
  nlohmann::json config = bit_relevant_config(context.spec);
  config["dataset"]["path"] = dataset.digest();
  config["config"] = to_diffusers_json(options);
  AutoencoderTraining training(context, spec, dataset, untrained_autoencoder(options, context.spec.seed));
  const TrainingOutcome outcome = train(context, config, training);
  AutoencoderKl vae = training.finished();
  JobResult result;
  if (context.communicator.rank() == 0) {
    options.scaling_factor = scaling_factor_of(vae, dataset);
    save_autoencoder_kl(context.run, options, *vae);
    const AutoencoderKl saved = load_autoencoder_kl(context.run);
    result.digest = autoencoder_sha256(saved);
    result.result = {{"images", training.images_after(training.num_iterations())},
                     {"images_per_second", outcome.images_per_second},
                     {"scaling_factor", options.scaling_factor},
                     {"autoencoder_sha256", result.digest}};
  }
  return result;
}

}  // namespace onestep
