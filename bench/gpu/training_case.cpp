#include <cstring>
#include <map>
#include <memory>
#include <span>

#include "bench_network.h"
#include "cases.h"
#include "collected.h"
#include "common/error.h"
#include "common/safetensors_file.h"
#include "timing.h"
#include "worker/comm/single_communicator.h"
#include "worker/dmd/dmd_step.h"
#include "worker/models/initialize.h"
#include "worker/models/vgg_lpips.h"
#include "worker/run/device_updater.h"
#include "worker/tensors/keyed_random.h"

namespace onestep {
namespace {

struct TrainingCase {
  const char* dataset;
  std::int64_t batch, pairs, micro_batches;
  bool lpips;
};

const std::map<std::string, TrainingCase>& training_cases() {
  static const std::map<std::string, TrainingCase> kCases = {{"cifar10-b56", {"cifar10", 56, 56, 1, false}},
                                                             {"cifar10-b256", {"cifar10", 256, 256, 2, false}},
                                                             {"cifar10-lpips", {"cifar10", 56, 56, 1, true}},
                                                             {"imagenet64-b48", {"imagenet64", 48, 48, 2, false}}};
  return kCases;
}

constexpr std::uint64_t kTrainingSeed = 7;
constexpr int kWarmUps = 3;
constexpr float kFakeScale = 0.9f;

class LpipsOnDevice final : public Distance {
 public:
  explicit LpipsOnDevice(VggLpips lpips) : lpips_(std::move(lpips)) {}
  [[nodiscard]] torch::Tensor operator()(const torch::Tensor& x, const torch::Tensor& reference) const override { return lpips_(x, reference); }

 private:
  VggLpips lpips_;
};

std::unique_ptr<Distance> distance_of(const TrainingCase& item, bool small, const torch::Device& device, Collected& collected) {
  if (!item.lpips) return std::make_unique<L2Distance>();
  std::vector<torch::Tensor> kept;
  std::vector<TensorView> views;
  for (const ExpectedTensor& expected : lpips_tensors()) {
    torch::Tensor weight = torch::empty(expected.shape);
    const double fan_in = static_cast<double>(weight.numel() / weight.size(0));
    fill_keyed_uniform(weight, kTrainingSeed, expected.name, weight.dim() == 1 ? 0.1 : std::sqrt(6 / fan_in));
    if (expected.name.starts_with("lin")) weight.abs_();
    collected.add("lpips." + expected.name, weight);
    kept.push_back(weight);
    views.push_back({expected.name, DType::kF32, expected.shape, {static_cast<const std::byte*>(weight.const_data_ptr()), weight.nbytes()}});
  }
  LpipsSpec spec;
  spec.resize = small ? 32 : 224;
  VggLpips lpips(views, "keyed", spec);
  lpips.move_to(device, torch::kBFloat16);
  return std::make_unique<LpipsOnDevice>(std::move(lpips));
}

// Everything of one distillation on the device, and one iteration of it.
class Distillation {
 public:
  Distillation(const BenchOptions& options, Collected& collected)
      : item_(scaled(training_cases().at(options.name), options.small)),
        spec_(bench_spec(item_.dataset, options.small)),
        device_(options.device),
        generator_(bench_network(spec_)),
        real_(bench_network(spec_)),
        fake_(bench_network(spec_, kFakeScale)),
        distance_(distance_of(item_, options.small, device_, collected)),
        optimizer_(optimizer()),
        generator_buffers_(generator_->module(), item_.micro_batches, true, {device_, torch::kBFloat16}),
        fake_buffers_(fake_->module(), item_.micro_batches, true, {device_, torch::kBFloat16}),
        real_buffers_(real_->module(), 1, false, {device_, torch::kBFloat16}),
        update_generator_(generator_buffers_, alone_, item_.micro_batches, "exact", optimizer_, {{500'000.0}, item_.batch}),
        update_fake_(fake_buffers_, alone_, item_.micro_batches, "exact", optimizer_, {}) {
    for (Denoiser* net : {generator_.get(), real_.get(), fake_.get()}) dynamic_cast<Preconditioner&>(*net).use_grid_kernels(true);
    settings_.seed = kTrainingSeed;
    settings_.global_batch = item_.batch;
    settings_.global_pairs = item_.pairs;
    settings_.score = {0.5, 5.0};
    settings_.fake = {0.1, 20.0};
    const auto there = torch::TensorOptions(device_);
    settings_.device_step = torch::zeros({1}, there.dtype(torch::kInt64));
    settings_.device_lambda = torch::tensor({1.0f, 0.25f}).to(device_);
    // Pairs as a data set would give them: images of order 1.
    const std::int64_t side = spec_.image_size;
    pair_noise_ = keyed_normal({kTrainingSeed, RandomStream::kPairNoise, 0}, 0, item_.pairs, {3, side, side}).to(device_);
    pair_image_ = keyed_normal({kTrainingSeed, RandomStream::kEvaluationNoise, 0}, 0, item_.pairs, {3, side, side}).mul(0.5).tanh().to(device_);
    pair_label_ = torch::arange(item_.pairs).remainder(spec_.label_dim).to(device_);
    const std::int64_t fresh = item_.batch / item_.micro_batches, pairs = item_.pairs / item_.micro_batches;
    for (std::int64_t m = 0; m < item_.micro_batches; ++m) {
      MicroBatch& batch = batches_.emplace_back();
      batch.first_sample = m * fresh;
      batch.num_samples = fresh;
      batch.pair_noise = pair_noise_.narrow(0, m * pairs, pairs);
      batch.pair_image = pair_image_.narrow(0, m * pairs, pairs);
      batch.pair_label = pair_label_.narrow(0, m * pairs, pairs);
    }
  }

  // What changes from iteration to iteration, on its way to the device; then one iteration, `work` or its recording.
  void begin() {
    ++num_updates_;
    update_generator_.begin({optimizer_.learning_rate, num_updates_, num_updates_ - 1});
    update_fake_.begin({optimizer_.learning_rate, num_updates_, 0});
  }
  void work() {
    report_ = dmd_step({*generator_, *real_, *fake_}, settings_, 0, batches_, *distance_, update_generator_, update_fake_);
    settings_.device_step.add_(1);
  }

  // Of the last iteration.
  [[nodiscard]] nlohmann::json figures() const {
    double dm = 0, reg = 0, fake = 0, gradient = 0;
    for (const DmdSums& sums : report_.micro_batches) {
      dm += sums.loss_dm;
      reg += sums.loss_reg;
      fake += sums.loss_fake;
      gradient += sums.gradient_abs;
    }
    return {{"loss_dm", dm}, {"loss_reg", reg}, {"loss_fake", fake}, {"dm_gradient_abs", gradient},
            {"gradient_norm_generator", double{report_.generator.gradient_norm}}, {"gradient_norm_fake", double{report_.fake.gradient_norm}}};
  }
  // The inputs of iteration 0, with its draws, for the twin.
  void collect(Collected& collected) const {
    for (const TensorView& view : named_tensors(generator_buffers_.values().cpu(), generator_buffers_.views())) {
      collected.add("weights." + view.name, torch::from_blob(const_cast<std::byte*>(view.bytes.data()), view.shape, torch::kFloat32).clone());
    }
    const auto& schedule = generator_->schedule();
    const std::int64_t side = spec_.image_size;
    const auto normal = [&](RandomStream stream) { return keyed_normal({kTrainingSeed, stream, 0}, 0, item_.batch, {3, side, side}); };
    const auto sigma = [&](RandomStream stream, const NoiseRange& range) {
      return schedule.timestep(keyed_uniform({kTrainingSeed, stream, 0}, 0, item_.batch), range.lo, range.hi);
    };
    collected.add("input.z", normal(RandomStream::kGeneratorNoise));
    collected.add("input.label", keyed_integer({kTrainingSeed, RandomStream::kGeneratorLabel, 0}, 0, item_.batch, spec_.label_dim));
    collected.add("input.score_sigma", sigma(RandomStream::kScoreSigma, settings_.score));
    collected.add("input.score_noise", normal(RandomStream::kScoreNoise));
    collected.add("input.fake_sigma", sigma(RandomStream::kFakeSigma, settings_.fake));
    collected.add("input.fake_noise", normal(RandomStream::kFakeNoise));
    collected.add("input.pair_noise", pair_noise_);
    collected.add("input.pair_image", pair_image_);
    collected.add("input.pair_label", pair_label_);
  }
  [[nodiscard]] nlohmann::json description() const {
    return {{"network", to_json(spec_)}, {"batch", item_.batch}, {"pairs", item_.pairs}, {"micro_batches", item_.micro_batches}, {"t_G", settings_.t_G}, {"fake_scale", kFakeScale},
            {"lpips_resize", item_.lpips ? (spec_.image_size == 8 ? 32 : 224) : 0}, {"score", {settings_.score.lo, settings_.score.hi}},
            {"fake", {settings_.fake.lo, settings_.fake.hi}},
            {"optimizer", {{"learning_rate", optimizer_.learning_rate}, {"beta1", optimizer_.beta1}, {"beta2", optimizer_.beta2},
                           {"epsilon", optimizer_.epsilon}, {"weight_decay", optimizer_.weight_decay}, {"clip_norm", optimizer_.clip_norm}}}};
  }
  [[nodiscard]] std::int64_t batch() const { return item_.batch; }
  [[nodiscard]] torch::Tensor generator_values() const { return generator_buffers_.values(); }

 private:
  static TrainingCase scaled(TrainingCase item, bool small) {
    if (small) item.batch = item.pairs = 4;
    return item;
  }
  static OptimizerSpec optimizer() {
    OptimizerSpec optimizer;
    optimizer.learning_rate = 5e-5;
    optimizer.beta2 = 0.999;
    optimizer.weight_decay = 0.01;
    optimizer.clip_norm = 10;
    return optimizer;
  }

  TrainingCase item_;
  NetworkSpec spec_;
  torch::Device device_;
  std::unique_ptr<Denoiser> generator_, real_, fake_;
  std::unique_ptr<Distance> distance_;
  OptimizerSpec optimizer_;
  SingleCommunicator alone_;
  FlatParameters generator_buffers_, fake_buffers_, real_buffers_;
  DeviceUpdater update_generator_, update_fake_;
  DmdSettings settings_;
  torch::Tensor pair_noise_, pair_image_, pair_label_;
  std::vector<MicroBatch> batches_;
  DmdReport report_;
  std::int64_t num_updates_ = 0;
};

}  // namespace

nlohmann::json run_training(const BenchOptions& options) {
  if (!training_cases().contains(options.name)) throw Error(ErrorCode::kUsage, "bench: unknown case " + options.name);
  Collected collected;
  Distillation distillation(options, collected);
  nlohmann::json result = {{"description", distillation.description()}};
  if (!options.inputs.empty()) {
    distillation.collect(collected);
    write_safetensors(options.inputs, collected.views(), {{"description", result["description"].dump()}});
  }
  // Iterations that count, until nothing is set up any more; the first one's figures are what the twin is compared by.
  distillation.begin();
  distillation.work();
  result["first"] = distillation.figures();
  for (int i = 1; i < kWarmUps; ++i) {
    distillation.begin();
    distillation.work();
  }
  const auto once = time_work([&] { distillation.begin(), distillation.work(); }, 0, 1);
  const auto start = BenchClock::now();
  const auto recorded = record([&] { distillation.work(); });
  synchronize_device();
  result["capture_s"] = seconds_since(start);
  const auto each = [&] {
    distillation.begin();
    recorded->run();
  };
  each();
  const Timing timing = time_work(each, options.seconds);
  result["eager_ms"] = once.seconds_each * 1e3;
  result["iterations"] = timing.count;
  result["ms_per_iteration"] = timing.seconds_each * 1e3;
  result["images_per_second"] = static_cast<double>(distillation.batch()) / timing.seconds_each;
  result["last"] = distillation.figures();
  result["finite"] = distillation.generator_values().isfinite().all().item<bool>();
  return result;
}

}  // namespace onestep
