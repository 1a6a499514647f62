// Trains an EDM denoiser (Karras et al. 2022): the teacher.
#include <memory>

#include "common/log.h"
#include "worker/data/image_dataset.h"
#include "worker/data/ordered_images.h"
#include "worker/dmd/losses.h"
#include "worker/models/model_factory.h"
#include "worker/run/images_fit.h"
#include "worker/run/jobs.h"
#include "worker/run/leaf_figures.h"
#include "worker/run/memory_plan.h"
#include "worker/run/model_folder.h"
#include "worker/run/module_buffers.h"
#include "worker/run/trainer.h"
#include "worker/tensors/keyed_random.h"

namespace onestep {
namespace {

class TeacherTraining final : public Training {
 public:
  TeacherTraining(const RunContext& context, const TrainTeacherSpec& spec, const ImageDataset& dataset)
      : context_(context),
        spec_(spec),
        dataset_(dataset),
        denoiser_(make_denoiser(spec.network, context.spec.seed)),
        flat_(denoiser_->module(), context.spec.micro_batches, true),
        updater_("teacher", that_fits(flat_, context), context.communicator, context.spec.micro_batches, context.spec.reduction,
                 {spec.ema_half_life_images, spec.batch}) {
    denoiser_->recompute_in_backward(context.spec.activation_checkpointing);
  }

  [[nodiscard]] std::int64_t num_iterations() const override { return spec_.images / spec_.batch; }
  [[nodiscard]] std::int64_t images_after(std::int64_t iterations) const override { return iterations * spec_.batch; }
  [[nodiscard]] std::string stage_of(std::int64_t) const override { return "teacher"; }
  void start_at(std::int64_t iteration) override {
    if (iteration == 0) {
      updater_.restart(spec_.optimizer, num_iterations());
    } else {
      updater_.resume(spec_.optimizer, num_iterations());
    }
  }

  std::map<std::string, double> iterate(std::int64_t iteration) override {
    const std::int64_t micro_batches = context_.spec.micro_batches;
    const std::int64_t rows = spec_.batch / micro_batches;
    const auto range = micro_batch_range(micro_batches, context_.communicator.rank(), context_.communicator.size());
    LeafFigures figures(context_.communicator, micro_batches, {"loss"});
    for (std::int64_t m = range.first; m < range.first + range.count; ++m) {
      const auto loss = micro_batch_loss(iteration, m * rows, rows);
      loss.backward();
      updater_.add_micro_batch();
      figures.add({loss.item<double>()});
    }
    const UpdateReport update = updater_.step();
    auto result = figures.reduce();
    result["gradient_norm"] = update.gradient_norm;
    result["learning_rate"] = updater_.learning_rate();
    return result;
  }

  std::vector<NetworkUpdater*> updaters() override { return {&updater_}; }
  [[nodiscard]] nlohmann::json description() const override {
    nlohmann::json json = {
        {"network", to_json(spec_.network)}, {"generator_sigma", 0.0}, {"delivered_network", "teacher"}};
    if (const auto buffers = buffers_to_json(module()); !buffers.empty()) json["buffers"] = buffers;
    return json;
  }

  // The delivered weights are the average's. Collective.
  [[nodiscard]] torch::Tensor average() { return updater_.gather_average(); }
  [[nodiscard]] const std::vector<FlatView>& views() const { return flat_.views(); }
  [[nodiscard]] const torch::nn::Module& module() const { return denoiser_->module(); }

 private:
  // EDM's loss: ln sigma ~ N(P_mean, P_std^2), weight 1/sigma^2 + 1/sigma_data^2, mean over B, C, H, W.
  torch::Tensor micro_batch_loss(std::int64_t iteration, std::int64_t first, std::int64_t rows) {
    const auto [x, labels] =
        ordered_images(dataset_, context_.spec.seed, RandomStream::kOrder, iteration * spec_.batch + first, rows);
    const Condition condition{labels, {}};
    const auto step = static_cast<std::uint32_t>(iteration);
    const auto ln_sigma = keyed_normal({context_.spec.seed, RandomStream::kTrainSigma, step}, first, rows, {1});
    const auto t = (ln_sigma.view({rows}) * spec_.P_std + spec_.P_mean).exp();
    const auto epsilon =
        keyed_normal({context_.spec.seed, RandomStream::kTrainNoise, step}, first, rows, x.sizes().slice(1));
    const auto mu = denoiser_->denoise(diffuse(denoiser_->schedule(), x, epsilon, t), t, condition);
    return denoising_loss(denoiser_->schedule(), mu, x, t, spec_.batch);
  }

  const RunContext& context_;
  const TrainTeacherSpec& spec_;
  const ImageDataset& dataset_;
  std::unique_ptr<Denoiser> denoiser_;
  FlatParameters flat_;
  NetworkUpdater updater_;
};

}  // namespace

JobResult run_train_teacher(const RunContext& context) {
  const auto& spec = std::get<TrainTeacherSpec>(context.spec.options);
  const ImageDataset dataset(spec.dataset);
  check_images_fit(spec.network, dataset, spec.dataset.path);
  nlohmann::json config = bit_relevant_config(context.spec);
  config["dataset"]["path"] = dataset.digest();
  TeacherTraining training(context, spec, dataset);
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
