// Distribution matching distillation: regression warm-up, the fake score catches up, then dmd_step to the end.
#include <cmath>
#include <memory>

#include "common/error.h"
#include "common/log.h"
#include "worker/data/pair_reader.h"
#include "worker/diffusion/guidance.h"
#include "worker/dmd/dmd_step.h"
#include "worker/run/job_text.h"
#include "worker/run/jobs.h"
#include "worker/run/leaf_figures.h"
#include "worker/run/lpips_distance.h"
#include "worker/run/memory_plan.h"
#include "worker/run/model_folder.h"
#include "worker/run/module_buffers.h"
#include "worker/run/parametrisation.h"
#include "worker/run/trainer.h"
#include "worker/tensors/keyed_random.h"

namespace onestep {
namespace {

enum class Phase { kWarmup, kFakeWarmup, kDmd };

class Distillation final : public Training {
 public:
  // `prompts`: null for networks without text.
  Distillation(const RunContext& context, const DistillSpec& spec, LoadedModel teacher, const PairSet& pairs,
               const PromptEmbeddings* prompts, std::unique_ptr<Distance> distance)
      : context_(context),
        spec_(spec),
        pairs_(pairs),
        prompts_(prompts),
        teacher_(std::move(teacher)),
        generator_(load_model(spec.teacher, "ema", spec.like)),
        fake_(load_model(spec.teacher, "ema", spec.like)),
        parametrisation_(parametrisation_of(spec, *teacher_.denoiser)),
        guided_(*teacher_.denoiser, spec.dmd.guidance_scale, prompts != nullptr ? prompts->null_text() : torch::Tensor()),
        real_flat_(teacher_.denoiser->module(), 1, false),
        generator_flat_(generator_.denoiser->module(), context.spec.micro_batches, true),
        fake_flat_(fake_.denoiser->module(), context.spec.micro_batches, true),
        update_generator_("generator", that_fits(generator_flat_, context), context.communicator, context.spec.micro_batches,
                          context.spec.reduction, {spec.ema_half_life_images, spec.dmd.batch}),
        update_fake_("fake", fake_flat_, context.communicator, context.spec.micro_batches, context.spec.reduction, {}),
        networks_{*generator_.denoiser, guided_, *fake_.denoiser},
        distance_(std::move(distance)),
        range_(micro_batch_range(context.spec.micro_batches, context.communicator.rank(),
                                 context.communicator.size())) {
    generator_.denoiser->recompute_in_backward(context.spec.activation_checkpointing);
    fake_.denoiser->recompute_in_backward(context.spec.activation_checkpointing);
  }

  [[nodiscard]] std::int64_t num_iterations() const override {
    return spec_.warmup.iterations + spec_.fake_warmup.iterations + spec_.dmd.iterations;
  }

  // Generator images with a gradient: pairs of the warm-up, fresh samples and pairs of the DMD phase.
  [[nodiscard]] std::int64_t images_after(std::int64_t iterations) const override {
    const std::int64_t warmup = std::min(iterations, spec_.warmup.iterations);
    const std::int64_t dmd = std::max<std::int64_t>(0, iterations - dmd_start());
    return warmup * spec_.warmup.pairs + dmd * (spec_.dmd.batch + spec_.dmd.pairs);
  }

  [[nodiscard]] std::string stage_of(std::int64_t iteration) const override {
    switch (phase_of(iteration)) {
      case Phase::kWarmup: return "regression";
      case Phase::kFakeWarmup: return "fake score";
      case Phase::kDmd: return "distill";
    }
    return "";
  }

  void start_at(std::int64_t iteration) override {
    if (iteration < num_iterations()) enter(phase_of(iteration), iteration, /*resumed=*/iteration > 0);
  }

  std::map<std::string, double> iterate(std::int64_t iteration) override {
    const Phase phase = phase_of(iteration);
    if (phase != phase_) enter(phase, iteration, /*resumed=*/false);
    const auto step = static_cast<std::uint32_t>(iteration);
    switch (phase) {
      case Phase::kWarmup: {
        const auto batches = micro_batches(step, 0);
        const DmdReport report =
            regression_step(*generator_.denoiser, settings(), batches, *distance_, update_generator_);
        auto figures = reduce(report);
        return {{"loss_reg", figures["loss_reg"]},
                {"gradient_norm_generator", report.generator.gradient_norm},
                {"sample_mean", figures["sample_mean"]},
                {"sample_spread", figures["sample_spread"]}};
      }
      case Phase::kFakeWarmup: {
        const auto batches = micro_batches(step, spec_.dmd.batch);
        const DmdReport report = fake_score_step(networks_, settings(), step, batches, update_fake_);
        auto figures = reduce(report);
        return {{"loss_fake", figures["loss_fake"]},
                {"gradient_norm_fake", report.fake.gradient_norm},
                {"sample_mean", figures["sample_mean"]},
                {"sample_spread", figures["sample_spread"]}};
      }
      case Phase::kDmd: {
        const auto batches = micro_batches(step, spec_.dmd.batch);
        const DmdReport report =
            dmd_step(networks_, settings(), step, batches, *distance_, update_generator_, update_fake_);
        auto figures = reduce(report);
        figures["gradient_norm_generator"] = report.generator.gradient_norm;
        figures["gradient_norm_fake"] = report.fake.gradient_norm;
        return figures;
      }
    }
    return {};
  }

  std::vector<NetworkUpdater*> updaters() override { return {&update_generator_, &update_fake_}; }
  [[nodiscard]] nlohmann::json description() const override {
    nlohmann::json json = {{"network", network_json(teacher_)},
                           {"generator_sigma", parametrisation_.t_G},
                           {"delivered_network", "generator"},
                           {"teacher_sha256", teacher_.sha256}};
    if (const auto buffers = buffers_to_json(module()); !buffers.empty()) json["buffers"] = buffers;
    return json;
  }
  std::map<std::string, double> slow_figures() override {
    std::map<std::string, double> figures = {{"raw_ema_distance", update_generator_.average_distance()}};
    if (reader_) figures["data_wait_s"] = reader_->waited_s();
    return figures;
  }

  [[nodiscard]] torch::Tensor average() { return update_generator_.gather_average(); }
  [[nodiscard]] const std::vector<FlatView>& views() const { return generator_flat_.views(); }
  [[nodiscard]] const torch::nn::Module& module() const { return generator_.denoiser->module(); }
  [[nodiscard]] const LoadedModel& teacher() const { return teacher_; }
  [[nodiscard]] double t_G() const { return parametrisation_.t_G; }

 private:
  [[nodiscard]] std::int64_t dmd_start() const { return spec_.warmup.iterations + spec_.fake_warmup.iterations; }
  [[nodiscard]] Phase phase_of(std::int64_t iteration) const {
    if (iteration < spec_.warmup.iterations) return Phase::kWarmup;
    return iteration < dmd_start() ? Phase::kFakeWarmup : Phase::kDmd;
  }

  // A phase begins (its first iteration), or goes on after a restart of the process.
  void enter(Phase phase, std::int64_t iteration, bool resumed) {
    phase_ = phase;
    const std::int64_t first = phase == Phase::kWarmup       ? 0
                               : phase == Phase::kFakeWarmup ? spec_.warmup.iterations
                                                             : dmd_start();
    const bool begins = iteration == first;
    const std::int64_t fake_updates = spec_.fake_warmup.iterations + spec_.dmd.iterations;
    const auto start = [begins](NetworkUpdater& updater, const OptimizerSpec& optimizer, std::int64_t updates) {
      if (begins) {
        updater.restart(optimizer, updates);
      } else {
        updater.resume(optimizer, updates);
      }
    };
    switch (phase) {
      case Phase::kWarmup:
        start(update_generator_, spec_.warmup.optimizer, spec_.warmup.iterations);
        read_pairs(spec_.warmup.pairs, iteration * spec_.warmup.pairs);
        break;
      case Phase::kFakeWarmup:
        // The generator goes on as its own average; the fake score starts from the teacher.
        if (begins && spec_.warmup.iterations > 0) update_generator_.adopt_average();
        start(update_fake_, spec_.dmd.fake, fake_updates);
        reader_.reset();
        break;
      case Phase::kDmd:
        if (begins && spec_.fake_warmup.iterations == 0) {
          if (spec_.warmup.iterations > 0) update_generator_.adopt_average();
          update_fake_.restart(spec_.dmd.fake, fake_updates);
        } else {
          update_fake_.resume(spec_.dmd.fake, fake_updates);
        }
        start(update_generator_, spec_.dmd.generator, spec_.dmd.iterations);
        read_pairs(spec_.dmd.pairs,
                   spec_.warmup.iterations * spec_.warmup.pairs + (iteration - dmd_start()) * spec_.dmd.pairs);
        break;
    }
    if (resumed && context_.communicator.rank() == 0) log_info("going on within phase " + stage_of(iteration));
  }

  void read_pairs(std::int64_t pairs_an_iteration, std::int64_t first_position) {
    reader_.reset();
    pairs_per_micro_batch_ = pairs_an_iteration / context_.spec.micro_batches;
    if (pairs_an_iteration == 0) return;
    PairSlice slice;
    slice.seed = context_.spec.seed;
    slice.max_pairs = spec_.max_pairs;
    slice.first_position = first_position;
    slice.global_count = pairs_an_iteration;
    slice.offset = range_.first * pairs_per_micro_batch_;
    slice.count = range_.count * pairs_per_micro_batch_;
    reader_ = std::make_unique<PairReader>(pairs_, slice);
  }

  // This rank's micro-batches of one iteration: `fresh` samples over all M of them, and pairs when the phase reads any.
  std::vector<MicroBatch> micro_batches(std::uint32_t step, std::int64_t fresh) {
    const std::int64_t samples = fresh / context_.spec.micro_batches;
    std::optional<PairBatch> pairs;
    if (reader_) pairs = reader_->next();
    std::vector<MicroBatch> batches;
    for (std::int64_t m = 0; m < range_.count; ++m) {
      MicroBatch& batch = batches.emplace_back();
      batch.first_sample = (range_.first + m) * samples;
      batch.num_samples = samples;
      if (prompts_ != nullptr && samples > 0) {
        const DrawKey key{context_.spec.seed, RandomStream::kGeneratorLabel, step};
        batch.text = prompts_->text(keyed_integer(key, batch.first_sample, samples, prompts_->size()));
      }
      if (pairs) {
        batch.pair_noise = pairs->noise.narrow(0, m * pairs_per_micro_batch_, pairs_per_micro_batch_);
        batch.pair_image = pairs->image.narrow(0, m * pairs_per_micro_batch_, pairs_per_micro_batch_);
        batch.pair_label = pairs->label.narrow(0, m * pairs_per_micro_batch_, pairs_per_micro_batch_);
        if (prompts_ != nullptr) batch.pair_text = prompts_->text(batch.pair_label);
      }
    }
    return batches;
  }

  [[nodiscard]] DmdSettings settings() const {
    DmdSettings settings;
    settings.seed = context_.spec.seed;
    settings.t_G = parametrisation_.t_G;
    settings.global_batch = spec_.dmd.batch;
    settings.global_pairs = pairs_per_micro_batch_ * context_.spec.micro_batches;
    settings.lambda_dm = spec_.dmd.lambda_dm;
    settings.lambda_reg = spec_.dmd.lambda_reg;
    settings.score = parametrisation_.score;
    settings.fake = parametrisation_.fake;
    return settings;
  }

  std::map<std::string, double> reduce(const DmdReport& report) {
    LeafFigures leaves(context_.communicator, context_.spec.micro_batches,
                       {"loss_dm", "loss_reg", "loss_fake", "dm_gradient_abs", "sample_mean", "sample_spread",
                        "zero_denominators"});
    for (const DmdSums& sums : report.micro_batches) {
      leaves.add({sums.loss_dm, sums.loss_reg, sums.loss_fake, sums.gradient_abs, sums.sample_sum,
                  sums.sample_square_sum, sums.zero_denominators});
    }
    auto figures = leaves.reduce();
    const double mean = figures["sample_mean"];
    figures["sample_spread"] = std::sqrt(std::max(0.0, figures["sample_spread"] - mean * mean));
    return figures;
  }

  const RunContext& context_;
  const DistillSpec& spec_;
  const PairSet& pairs_;
  const PromptEmbeddings* prompts_;
  LoadedModel teacher_, generator_, fake_;
  Parametrisation parametrisation_;
  GuidedDenoiser guided_;  // the teacher as the real score
  FlatParameters real_flat_, generator_flat_, fake_flat_;
  NetworkUpdater update_generator_, update_fake_;
  DmdNetworks networks_;
  std::unique_ptr<Distance> distance_;
  MicroBatchRange range_;
  Phase phase_ = Phase::kWarmup;
  std::unique_ptr<PairReader> reader_;
  std::int64_t pairs_per_micro_batch_ = 0;
};

// The labels of the pairs must be rows of these prompts, or classes.
void check_prompts(const PairSet& pairs, const std::string& where, const PromptEmbeddings* prompts) {
  const std::string expected = prompts != nullptr ? prompts->info().digest() : "", found = pairs.info().prompts_sha256;
  if (found == expected) return;
  const auto shown = [](const std::string& digest) { return digest.empty() ? std::string("none") : digest; };
  throw Error(ErrorCode::kMismatch, where + ": prompts_sha256: expected " + shown(expected) + ", the prompts of this job, found " +
                                        shown(found));
}

}  // namespace

JobResult run_distill(const RunContext& context) {
  const auto& spec = std::get<DistillSpec>(context.spec.options);
  LoadedModel teacher = load_model(spec.teacher, "ema", spec.like);
  const std::string teacher_digest = teacher.sha256;
  const auto prompts = load_job_text(teacher, spec.prompts, /*verify=*/context.communicator.rank() == 0).prompts;
  const PairSet pairs(spec.pairs, teacher_digest);
  check_prompts(pairs, spec.pairs, prompts.get());
  pairs.verify(context.communicator.rank(), context.communicator.size());
  nlohmann::json config = bit_relevant_config(context.spec);
  config["teacher"] = teacher_digest;
  config["pairs"] = pairs.digest();

  if (prompts) config["prompts"] = prompts->info().digest();
  config.erase("like");

  LoadedDistance distance = load_distance(spec, context.spec.activation_checkpointing);
  if (!distance.sha256.empty()) config["lpips"]["weights"] = distance.sha256;
  if (!distance.decoder_sha256.empty()) config["decoder"] = distance.decoder_sha256;

  Distillation training(context, spec, std::move(teacher), pairs, prompts.get(), std::move(distance.distance));
  const TrainingOutcome outcome = train(context, config, training);
  const torch::Tensor average = training.average();
  JobResult result;
  if (context.communicator.rank() == 0) {
    ModelConfig model;
    model.network = network_json(training.teacher());
    model.kind = context.spec.kind;
    model.generator_sigma = training.t_G();
    model.images = training.images_after(training.num_iterations());
    model.teacher_sha256 = teacher_digest;
    result.digest = save_model(context.run, model, named_tensors(average, training.views(), training.module()));
    result.result = {{"generator_sha256", result.digest},
                     {"images", model.images},
                     {"images_per_second", outcome.images_per_second}};
  }
  return result;
}

}  // namespace onestep
