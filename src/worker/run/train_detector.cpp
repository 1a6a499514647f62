// Trains the small classifier behind the digits' Fréchet distance.
#include <chrono>
#include <cmath>

#include "common/log.h"
#include "worker/data/global_order.h"
#include "worker/data/image_dataset.h"
#include "worker/models/digit_detector.h"
#include "worker/models/initialize.h"
#include "worker/run/detector_folder.h"
#include "worker/run/jobs.h"
#include "worker/run/leaf_figures.h"
#include "worker/run/trainer.h"

namespace onestep {
namespace {

// torch's default for these layers: uniform within 1/sqrt(fan_in), weights and biases.
void initialize_detector(DigitDetector& detector, std::uint64_t seed) {
  auto parameters = detector->named_parameters();
  for (auto& item : parameters) {
    const std::string module = item.key().substr(0, item.key().rfind('.'));
    const auto& weight = parameters[module + ".weight"];
    fill_keyed_uniform(item.value(), seed, item.key(),
                       1 / std::sqrt(static_cast<double>(weight.numel() / weight.size(0))));
  }
}

class DetectorTraining final : public Training {
 public:
  DetectorTraining(const RunContext& context, const TrainDetectorSpec& spec, const ImageDataset& dataset)
      : context_(context),
        spec_(spec),
        dataset_(dataset),
        detector_(dataset.images().size(1), dataset.images().size(2), dataset.num_classes()) {
    initialize_detector(detector_, context.spec.seed);
    flat_ = std::make_unique<FlatParameters>(*detector_, context.spec.micro_batches, true);
    updater_ = std::make_unique<NetworkUpdater>("detector", *flat_, context.communicator, context.spec.micro_batches,
                                                context.spec.reduction, AverageOptions{});
    // The first `held_out` places of a permutation of its own are never trained on.
    for (std::int64_t place = 0; place < dataset.size(); ++place) {
      (place < spec.held_out ? held_out_ : trained_)
          .push_back(ordered_index(context.spec.seed + 1, dataset.size(), place));
    }
  }

  [[nodiscard]] std::int64_t num_iterations() const override { return spec_.iterations; }
  [[nodiscard]] std::int64_t images_after(std::int64_t iterations) const override { return iterations * spec_.batch; }
  [[nodiscard]] std::string stage_of(std::int64_t) const override { return "detector"; }
  void start_at(std::int64_t iteration) override {
    if (iteration == 0) {
      updater_->restart(spec_.optimizer, spec_.iterations);
    } else {
      updater_->resume(spec_.optimizer, spec_.iterations);
    }
  }

  std::map<std::string, double> iterate(std::int64_t iteration) override {
    const std::int64_t micro_batches = context_.spec.micro_batches;
    const std::int64_t rows = spec_.batch / micro_batches;
    const auto range = micro_batch_range(micro_batches, context_.communicator.rank(), context_.communicator.size());
    LeafFigures figures(context_.communicator, micro_batches, {"loss"});
    for (std::int64_t m = range.first; m < range.first + range.count; ++m) {
      std::vector<std::int64_t> indices;
      for (std::int64_t row = 0; row < rows; ++row) {
        const std::int64_t position = iteration * spec_.batch + m * rows + row;
        indices.push_back(trained_[static_cast<std::size_t>(
            ordered_index(context_.spec.seed, static_cast<std::int64_t>(trained_.size()), position))]);
      }
      const auto index = torch::tensor(indices);
      const auto logits = detector_(dataset_.images().index_select(0, index));
      const auto loss = torch::cross_entropy_loss(logits, dataset_.labels().index_select(0, index), {}, at::Reduction::Sum) /
                        static_cast<double>(spec_.batch);
      loss.backward();
      updater_->add_micro_batch();
      figures.add({loss.item<double>()});
    }
    const UpdateReport update = updater_->step();
    auto result = figures.reduce();
    result["gradient_norm"] = update.gradient_norm;
    return result;
  }

  std::vector<NetworkUpdater*> updaters() override { return {updater_.get()}; }
  [[nodiscard]] nlohmann::json description() const override { return {{"delivered_network", "detector"}}; }

  double accuracy(const std::vector<std::int64_t>& rows) {
    torch::NoGradGuard no_grad;
    if (rows.empty()) return 0;
    const auto index = torch::tensor(rows);
    const auto predicted = detector_(dataset_.images().index_select(0, index)).argmax(1);
    return (predicted == dataset_.labels().index_select(0, index)).to(torch::kFloat64).mean().item<double>();
  }
  [[nodiscard]] const std::vector<std::int64_t>& held_out() const { return held_out_; }
  [[nodiscard]] const std::vector<std::int64_t>& trained() const { return trained_; }
  DigitDetector& detector() { return detector_; }

 private:
  const RunContext& context_;
  const TrainDetectorSpec& spec_;
  const ImageDataset& dataset_;
  DigitDetector detector_;
  std::unique_ptr<FlatParameters> flat_;
  std::unique_ptr<NetworkUpdater> updater_;
  std::vector<std::int64_t> held_out_, trained_;
};

}  // namespace

JobResult run_train_detector(const RunContext& context) {
  const auto& spec = std::get<TrainDetectorSpec>(context.spec.options);
  const ImageDataset dataset(spec.dataset);
  if (spec.held_out >= dataset.size()) {
    throw Error(ErrorCode::kMismatch, "held_out: expected less than the " + std::to_string(dataset.size()) +
                                          " images of " + spec.dataset.path + ", found " +
                                          std::to_string(spec.held_out));
  }
  nlohmann::json config = bit_relevant_config(context.spec);
  config["dataset"]["path"] = dataset.digest();
  DetectorTraining training(context, spec, dataset);
  const TrainingOutcome outcome = train(context, config, training);
  JobResult result;
  if (context.communicator.rank() == 0) {
    result.digest = save_detector(context.run, training.detector());
    result.result = {{"train_accuracy", training.accuracy(training.trained())},
                     {"held_out_accuracy", training.accuracy(training.held_out())},
                     {"images_per_second", outcome.images_per_second}};
  }
  return result;
}

}  // namespace onestep
