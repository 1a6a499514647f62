// Trains an EDM denoiser (Karras et al. 2022): the teacher.
#include <memory>
#include <utility>
#include <vector>

#include "common/log.h"
#include "worker/data/image_dataset.h"
#include "worker/data/ordered_images.h"
#include "worker/dmd/losses.h"
#include "worker/models/model_factory.h"
#include "worker/run/images_fit.h"
#include "worker/run/jobs.h"
#include "worker/run/model_folder.h"
#include "worker/run/module_buffers.h"
#include "worker/run/one_network_training.h"
#include "worker/tensors/keyed_random.h"

namespace onestep {
namespace {

class TeacherTraining final : public OneNetworkTraining {
 public:
  TeacherTraining(const RunContext& context, const TrainTeacherSpec& spec, const ImageDataset& dataset, std::unique_ptr<Denoiser> denoiser)
      : OneNetworkTraining(context, denoiser->module(), one_network_options("teacher", spec, {"loss"})),
        spec_(spec),
        dataset_(dataset),
        denoiser_(std::move(denoiser)) {
    denoiser_->recompute_in_backward(context.spec.activation_checkpointing);
  }

  [[nodiscard]] nlohmann::json description() const override {
    nlohmann::json json = {
        {"network", to_json(spec_.network)}, {"generator_sigma", 0.0}, {"delivered_network", "teacher"}};
    if (const auto buffers = buffers_to_json(module()); !buffers.empty()) json["buffers"] = buffers;
    return json;
  }

  [[nodiscard]] const torch::nn::Module& module() const { return denoiser_->module(); }

 private:
  // EDM's loss: ln sigma ~ N(P_mean, P_std^2), weight 1/sigma^2 + 1/sigma_data^2, mean over B, C, H, W.
  std::vector<torch::Tensor> micro_batch_losses(std::int64_t iteration, std::int64_t first, std::int64_t rows) override {
    const auto [x, labels] =
        ordered_images({dataset_.images(), dataset_.labels()}, context().spec.seed, RandomStream::kOrder, iteration * spec_.batch + first, rows);
    const Condition condition{labels, {}};
    const auto step = static_cast<std::uint32_t>(iteration);
    const auto ln_sigma = keyed_normal({context().spec.seed, RandomStream::kTrainSigma, step}, first, rows, {1});
    const auto t = (ln_sigma.view({rows}) * spec_.P_std + spec_.P_mean).exp();
    const auto epsilon =
        keyed_normal({context().spec.seed, RandomStream::kTrainNoise, step}, first, rows, x.sizes().slice(1));
    const auto mu = denoiser_->denoise(diffuse(denoiser_->schedule(), x, epsilon, t), t, condition);
    return {denoising_loss(denoiser_->schedule(), mu, x, t, spec_.batch)};
  }

  const TrainTeacherSpec& spec_;
  const ImageDataset& dataset_;
  std::unique_ptr<Denoiser> denoiser_;
};

}  // namespace

JobResult run_train_teacher(const RunContext& context) {
  const auto& spec = std::get<TrainTeacherSpec>(context.spec.options);
  const ImageDataset dataset(spec.dataset);
  check_images_fit(spec.network, dataset, spec.dataset.path);
  nlohmann::json config = bit_relevant_config(context.spec);
  config["dataset"]["path"] = dataset.digest();
  TeacherTraining training(context, spec, dataset, make_denoiser(spec.network, context.spec.seed));
  const TrainingOutcome outcome = train(context, config, training);
  const torch::Tensor average = training.average();
  JobResult result;
  if (context.communicator.rank() == 0) {
    ModelConfig model;
    model.network = to_json(spec.network);
    model.kind = context.spec.kind;
    model.images = training.images_after(training.num_iterations());
    result.digest = save_model(context.run, model, named_tensors(average, training.views(), training.module()));
    result.result = {{"images", model.images}, {"images_per_second", outcome.images_per_second}};
  }
  return result;
}

}  // namespace onestep
