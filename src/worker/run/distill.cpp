// Distribution matching distillation: regression warm-up, the fake score catches up, then dmd_step to the end.
#include <cmath>
#include <memory>
#include <optional>

#include "common/error.h"
#include "common/log.h"
#include "worker/data/image_dataset.h"
#include "worker/data/pair_reader.h"
#include "worker/diffusion/guidance.h"
#include "worker/dmd/dmd_step.h"
#include "worker/models/discriminator_head.h"
#include "worker/run/device_loop.h"
#include "worker/run/distill_batches.h"
#include "worker/run/distill_schedule.h"
#include "worker/run/images_fit.h"
#include "worker/run/job_text.h"
#include "worker/run/jobs.h"
#include "worker/run/latents_fit.h"
#include "worker/run/leaf_figures.h"
#include "worker/run/memory_plan.h"
#include "worker/run/model_folder.h"
#include "worker/run/module_buffers.h"
#include "worker/run/parametrisation.h"
#include "worker/run/trainer.h"

namespace onestep {
namespace {

enum class Phase { kWarmup, kFakeWarmup, kDmd };

class Distillation final : public Training {
 public:
  Distillation(const RunContext& context, const DistillSpec& spec, LoadedModel teacher, const DistillSources& sources,
               DistillDistances distances)
      : context_(context),
        spec_(spec),
        batches_(context, spec, sources),
        teacher_(std::move(teacher)),
        generator_(load_model(spec.teacher, "ema", spec.like)),
        fake_(load_model(spec.teacher, "ema", spec.like)),
        parametrisation_(parametrisation_of(spec, *teacher_.denoiser)),
        guided_(*teacher_.denoiser, spec.dmd.guidance_scale,
                sources.prompts != nullptr ? sources.prompts->null_text() : torch::Tensor()),
        discriminator_(sources.real_images != nullptr
                           ? std::make_unique<BottleneckDiscriminator>(*fake_.denoiser, context.spec.seed)
                           : nullptr),
        placement_(placement_of(context)),
        real_flat_(teacher_.denoiser->module(), 1, false, placement_),
        generator_flat_(generator_.denoiser->module(), context.spec.micro_batches, true, placement_),
        fake_flat_(fake_.denoiser->module(), context.spec.micro_batches, true, placement_),
        update_generator_("generator", that_fits(generator_flat_, fake_flat_, context), context.communicator, context.spec.micro_batches,
                          context.spec.reduction, {spec.ema_half_life_images, spec.dmd.batch}, context.between_devices),
        update_fake_("fake", fake_flat_, context.communicator, context.spec.micro_batches, context.spec.reduction, {},
                     context.between_devices),
        networks_{*generator_.denoiser, guided_, *fake_.denoiser, discriminator_.get()},
        distances_(std::move(distances)) {
    generator_.denoiser->recompute_in_backward(context.spec.activation_checkpointing);
    fake_.denoiser->recompute_in_backward(context.spec.activation_checkpointing);
    if (generator_flat_.is_placed()) device_.emplace(placement_.device, std::vector<NetworkUpdater*>{&update_generator_, &update_fake_});
  }

  [[nodiscard]] std::int64_t num_iterations() const override {
    return spec_.warmup.iterations + spec_.fake_warmup.iterations + spec_.dmd.iterations;
  }

  // Generator images with a gradient: pairs of the warm-up, fresh samples and pairs of the DMD phase.
  [[nodiscard]] std::int64_t images_after(std::int64_t iterations) const override {
    const std::int64_t warmup = std::min(iterations, spec_.warmup.iterations);
    const std::int64_t turns = num_generator_turns(spec_, std::max<std::int64_t>(0, iterations - dmd_start()));
    return warmup * spec_.warmup.pairs + turns * (spec_.dmd.batch + spec_.dmd.pairs);
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
    const DmdSettings settings = this->settings(iteration);
    const Distance& distance = distances_.at(stage_index(spec_.dmd.schedule, iteration - dmd_start()));
    switch (phase) {
      case Phase::kWarmup: {
        const auto batches = placed(batches_.next(step, {.fresh = 0, .pairs = true, .real_position = {}}));
        const DmdReport report = regression_step(*generator_.denoiser, placed(settings, step), batches, distance, update_generator_);
        auto figures = chosen(reduce(report), {"loss_reg", "sample_mean", "sample_spread"});
        figures["gradient_norm_generator"] = report.generator.gradient_norm;
        return figures;
      }
      case Phase::kFakeWarmup: {
        const auto batches =
            placed(batches_.next(step, {.fresh = spec_.dmd.batch, .pairs = false, .real_position = real_position(iteration)}));
        const DmdReport report = fake_score_step(networks_, placed(settings, step), step, batches, update_fake_);
        auto figures = chosen(reduce(report), {"loss_fake", "sample_mean", "sample_spread", "loss_discriminator", "discriminator_accuracy"});
        figures["gradient_norm_fake"] = report.fake.gradient_norm;
        return figures;
      }
      case Phase::kDmd: {
        const bool reads_pairs = spec_.dmd.regression_joins_dm || is_generators_turn(settings, step);
        const auto batches =
            batches_.next(step, {.fresh = spec_.dmd.batch, .pairs = reads_pairs, .real_position = real_position(iteration)});
        const DmdReport report = device_ ? dmd_step_there(iteration, batches)
                                         : dmd_step(networks_, settings, step, batches, distance, update_generator_, update_fake_);
        auto figures = reduce(report);
        figures["gradient_norm_generator"] = report.generator.gradient_norm;
        figures["gradient_norm_fake"] = report.fake.gradient_norm;
        return with_generators_last_turn(std::move(figures), is_generators_turn(settings, step));
      }
    }
    return {};
  }

  std::vector<NetworkUpdater*> updaters() override { return {&update_generator_, &update_fake_}; }
  [[nodiscard]] nlohmann::json description() const override {
    nlohmann::json json = {{"network", network_json(teacher_)},
                           {"generator_sigma", parametrisation_.t_G.front()},
                           {"delivered_network", "generator"},
                           {"teacher_sha256", teacher_.sha256}};
    if (parametrisation_.t_G.size() > 1) json["student_timesteps"] = parametrisation_.t_G;
    if (const auto buffers = buffers_to_json(module()); !buffers.empty()) json["buffers"] = buffers;
    return json;
  }
  std::map<std::string, double> slow_figures() override {
    std::map<std::string, double> figures = {{"raw_ema_distance", update_generator_.average_distance()}};
    if (const auto waited = batches_.waited_s()) figures["data_wait_s"] = *waited;
    return figures;
  }

  [[nodiscard]] torch::Tensor average() { return update_generator_.gather_average(); }
  [[nodiscard]] const std::vector<FlatView>& views() const { return generator_flat_.views(); }
  [[nodiscard]] const torch::nn::Module& module() const { return generator_.denoiser->module(); }
  // Trained to the end: what is saved lies on the CPU.
  void leave_device() { move_buffers(generator_.denoiser->module(), torch::kCPU); }
  [[nodiscard]] const LoadedModel& teacher() const { return teacher_; }
  [[nodiscard]] const std::vector<double>& t_G() const { return parametrisation_.t_G; }

 private:
  static FlatPlacement placement_of(const RunContext& context) {
    if (context.device_name.empty()) return {};
    return {torch::Device(torch::kCUDA), torch::kBFloat16};
  }
  // On the device, where there is one.
  std::vector<MicroBatch> placed(std::vector<MicroBatch> batches) { return device_ ? device_->place(batches) : std::move(batches); }
  DmdSettings placed(const DmdSettings& settings, std::uint32_t step) { return device_ ? device_->place(settings, step) : settings; }
  // Recorded and replayed where every iteration is the same work: not with turns, stages, nor with a student of several steps.
  DmdReport dmd_step_there(std::int64_t iteration, const std::vector<MicroBatch>& batches) {
    const std::vector<MicroBatch>& there = device_->place(batches);
    const auto step = static_cast<std::uint32_t>(iteration);
    const DmdSettings settings = device_->place(this->settings(iteration), step);
    const Distance& distance = distances_.at(stage_index(spec_.dmd.schedule, iteration - dmd_start()));
    const auto one = [this, &there, &distance, settings](std::uint32_t number) {
      return dmd_step(networks_, settings, number, there, distance, update_generator_, update_fake_);
    };
    if (settings.t_G.size() > 1 || settings.fake_updates_per_generator_update > 1 || !spec_.dmd.schedule.empty()) return one(step);
    return device_->run([one] { return one(0); });
  }

  [[nodiscard]] std::int64_t dmd_start() const { return spec_.warmup.iterations + spec_.fake_warmup.iterations; }
  [[nodiscard]] Phase phase_of(std::int64_t iteration) const {
    if (iteration < spec_.warmup.iterations) return Phase::kWarmup;
    return iteration < dmd_start() ? Phase::kFakeWarmup : Phase::kDmd;
  }

  // The fake score's turns take real images in one order, over both of its phases.
  [[nodiscard]] std::int64_t real_position(std::int64_t iteration) const {
    return (iteration - spec_.warmup.iterations) * spec_.dmd.batch;
  }

  // A phase begins (its first iteration), or goes on after a restart of the process.
  void enter(Phase phase, std::int64_t iteration, bool resumed) {
    phase_ = phase;
    if (device_) device_->reset();
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
        batches_.read_pairs(spec_.warmup.pairs, iteration * spec_.warmup.pairs);
        break;
      case Phase::kFakeWarmup:
        // The generator goes on as its own average; the fake score starts from the teacher.
        if (begins && spec_.warmup.iterations > 0) update_generator_.adopt_average();
        start(update_fake_, spec_.dmd.fake, fake_updates);
        batches_.read_pairs(0, 0);
        break;
      case Phase::kDmd: {
        const std::int64_t done = iteration - dmd_start();
        const std::int64_t reads = spec_.dmd.regression_joins_dm ? done : num_generator_turns(spec_, done);
        if (begins && spec_.fake_warmup.iterations == 0) {
          if (spec_.warmup.iterations > 0) update_generator_.adopt_average();
          update_fake_.restart(spec_.dmd.fake, fake_updates);
        } else {
          update_fake_.resume(spec_.dmd.fake, fake_updates);
        }
        start(update_generator_, spec_.dmd.generator, num_generator_turns(spec_, spec_.dmd.iterations));
        batches_.read_pairs(spec_.dmd.pairs, spec_.warmup.iterations * spec_.warmup.pairs + reads * spec_.dmd.pairs);
        break;
      }
    }
    if (resumed && context_.communicator.rank() == 0) log_info("going on within phase " + stage_of(iteration));
  }

  [[nodiscard]] DmdSettings settings(std::int64_t iteration) const {
    DmdSettings settings;
    settings.seed = context_.spec.seed;
    settings.t_G = parametrisation_.t_G;
    settings.global_batch = spec_.dmd.batch;
    settings.global_pairs = batches_.num_pairs();
    settings.lambda_dm = spec_.dmd.lambda_dm;
    settings.lambda_reg = spec_.dmd.lambda_reg;
    settings.score = parametrisation_.score;
    settings.fake = parametrisation_.fake;
    settings.fake_updates_per_generator_update = spec_.dmd.fake_updates_per_generator_update;
    settings.first_step = dmd_start();
    settings.regression_joins_dm = spec_.dmd.regression_joins_dm;
    settings.lambda_gan = spec_.dmd.gan.lambda_generator;
    settings.lambda_discriminator = spec_.dmd.gan.lambda_discriminator;
    settings.gan = parametrisation_.gan;
    if (const auto stage = stage_index(spec_.dmd.schedule, iteration - dmd_start())) {
      settings.lambda_reg = spec_.dmd.schedule[*stage].lambda_reg;
      settings.score = stage_score_range(spec_, *stage, *teacher_.denoiser);
    }
    return settings;
  }

  std::map<std::string, double> reduce(const DmdReport& report) {
    std::vector<std::string> names = {"loss_dm", "loss_reg", "loss_fake", "dm_gradient_abs", "sample_mean", "sample_spread",
                                      "zero_denominators"};
    if (discriminator_) names.insert(names.end(), {"loss_gan", "loss_discriminator", "discriminator_accuracy"});
    LeafFigures leaves(context_.communicator, context_.spec.micro_batches, names);
    for (const DmdSums& sums : report.micro_batches) {
      std::vector<double> leaf = {sums.loss_dm, sums.loss_reg, sums.loss_fake, sums.gradient_abs, sums.sample_sum,
                                  sums.sample_square_sum, sums.zero_denominators};
      if (discriminator_) leaf.insert(leaf.end(), {sums.loss_gan, sums.loss_discriminator, sums.discriminator_accuracy});
      leaves.add(leaf);
    }
    auto figures = leaves.reduce();
    const double mean = figures["sample_mean"];
    figures["sample_spread"] = std::sqrt(std::max(0.0, figures["sample_spread"] - mean * mean));
    return figures;
  }

  // Those of the figures that are there and named.
  static std::map<std::string, double> chosen(const std::map<std::string, double>& figures, const std::vector<std::string>& names) {
    std::map<std::string, double> some;
    for (const std::string& name : names) {
      if (const auto found = figures.find(name); found != figures.end()) some.insert(*found);
    }
    return some;
  }

  // Reports go out at any iteration: figures of the generator are those of its last turn, and absent until it had one in this process.
  std::map<std::string, double> with_generators_last_turn(std::map<std::string, double> figures, bool is_turn) {
    static const std::vector<std::string> kOfGenerator = {"loss_dm",           "loss_reg", "dm_gradient_abs",
                                                          "zero_denominators", "loss_gan", "gradient_norm_generator"};
    if (is_turn) {
      generators_last_turn_ = chosen(figures, kOfGenerator);
    } else {
      for (const std::string& name : kOfGenerator) figures.erase(name);
      figures.insert(generators_last_turn_.begin(), generators_last_turn_.end());
    }
    return figures;
  }

  const RunContext& context_;
  const DistillSpec& spec_;
  DistillBatches batches_;
  LoadedModel teacher_, generator_, fake_;
  Parametrisation parametrisation_;
  GuidedDenoiser guided_;  // the teacher as the real score
  std::unique_ptr<BottleneckDiscriminator> discriminator_;  // null: no GAN; before fake_flat_, which holds its parameters
  FlatPlacement placement_;
  FlatParameters real_flat_, generator_flat_, fake_flat_;
  NetworkUpdater update_generator_, update_fake_;
  std::optional<DeviceLoop> device_;
  DmdNetworks networks_;
  DistillDistances distances_;
  Phase phase_ = Phase::kWarmup;
  std::map<std::string, double> generators_last_turn_;
};

// The labels of the pairs must be rows of these prompts, or classes.
void check_prompts(const PairSet& pairs, const std::string& where, const PromptEmbeddings* prompts) {
  const std::string expected = prompts != nullptr ? prompts->info().digest() : "", found = pairs.info().prompts_sha256;
  if (found == expected) return;
  const auto shown = [](const std::string& digest) { return digest.empty() ? std::string("none") : digest; };
  throw Error(ErrorCode::kMismatch, where + ": prompts_sha256: expected " + shown(expected) + ", the prompts of this job, found " +
                                        shown(found));
}

// What the discriminator sees; `config` names it by content.
std::optional<LabelledImages> read_real_images(const DistillSpec::Gan& gan, const LoadedModel& teacher, const JobText& text, nlohmann::json& config) {
  if (!gan.is_on()) return std::nullopt;
  if (text.prompts) {
    const LatentDataset latents = read_latents(gan.latents + "/" + kLatentFileName);
    check_latents_fit(latents, gan.latents, {teacher.denoiser->image_shape(), autoencoder_sha256(text.parts.vae), teacher.path, text.prompts.get()});
    config["dmd"]["gan"]["latents"] = latents.digest();
    return LabelledImages{latents.latents, latents.labels};
  }
  const ImageDataset images(gan.dataset);
  check_images_fit(teacher.network, images, gan.dataset.path);
  config["dmd"]["gan"]["dataset"]["path"] = images.digest();
  return LabelledImages{images.images(), images.labels()};
}

}  // namespace

JobResult run_distill(const RunContext& context) {
  const auto& spec = std::get<DistillSpec>(context.spec.options);
  LoadedModel teacher = load_model(spec.teacher, "ema", spec.like);
  const std::string teacher_digest = teacher.sha256;
  if (!context.device_name.empty() && teacher.sd) {
    throw Error(ErrorCode::kConfig, "device: expected cpu for the text-to-image network of " + spec.teacher + ", found cuda");
  }
  const JobText text = load_job_text(teacher, spec.prompts, /*verify=*/context.communicator.rank() == 0);
  const PromptEmbeddings* prompts = text.prompts.get();
  nlohmann::json config = bit_relevant_config(context.spec);
  config["teacher"] = teacher_digest;
  std::optional<PairSet> pairs;
  if (!spec.pairs.empty()) {
    pairs.emplace(spec.pairs, teacher_digest);
    check_prompts(*pairs, spec.pairs, prompts);
    pairs->verify(context.communicator.rank(), context.communicator.size());
    config["pairs"] = pairs->digest();
  }
  const std::optional<LabelledImages> real_images = read_real_images(spec.dmd.gan, teacher, text, config);
  if (prompts) config["prompts"] = prompts->info().digest();
  config.erase("like");

  DistillDistances distances(spec, context.spec.activation_checkpointing, context.device_name.empty() ? torch::kCPU : torch::kCUDA);
  distances.name_by_content(config);

  const DistillSources sources{pairs ? &*pairs : nullptr, prompts, real_images ? &*real_images : nullptr};
  Distillation training(context, spec, std::move(teacher), sources, std::move(distances));
  const TrainingOutcome outcome = train(context, config, training);
  const torch::Tensor average = training.average();
  training.leave_device();
  JobResult result;
  if (context.communicator.rank() == 0) {
    ModelConfig model;
    model.network = network_json(training.teacher());
    model.kind = context.spec.kind;
    model.generator_sigma = training.t_G().front();
    if (training.t_G().size() > 1) model.student_timesteps = training.t_G();
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
