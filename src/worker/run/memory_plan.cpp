#include "worker/run/memory_plan.h"

#include <malloc.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <fstream>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/error.h"
#include "common/pair_file.h"
#include "worker/data/image_dataset.h"
#include "worker/data/prompt_embeddings.h"
#include "worker/diffusion/guidance.h"
#include "worker/dmd/dmd_step.h"
#include "worker/dmd/losses.h"
#include "worker/models/discriminator_head.h"
#include "worker/models/model_factory.h"
#include "worker/run/lpips_distance.h"
#include "worker/run/model_folder.h"
#include "worker/run/parametrisation.h"
#include "worker/tensors/flat_parameters.h"

namespace onestep {
namespace {

constexpr std::int64_t kFloat = 4;
constexpr std::int64_t kExchangeFloats = 2 * 256 * 1024;  // two chunks of MpiCommunicator
constexpr std::int64_t kSmallStep = std::int64_t{1} << 30;  // a step up to this size is measured whole

// A field of /proc/self/status or /proc/meminfo, in bytes; -1 where it is absent.
std::int64_t proc_field(const char* path, const std::string& key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(key + ":")) return std::stoll(line.substr(key.size() + 1)) * 1024;
  }
  return -1;
}

// Without what is free in the heap: the training will use that.
std::int64_t settled_resident_bytes() {
  ::malloc_trim(0);
  return proc_field("/proc/self/status", "VmRSS");
}

// VmHWM starts again at the present resident set.
void forget_peak() {
  std::ofstream file("/proc/self/clear_refs");
  file << "5" << std::flush;
  if (!file) throw Error(ErrorCode::kIo, "/proc/self/clear_refs: can't be written; the peak of memory can't be measured");
}

// Stands for the optimizer: takes the gradient and forgets it.
class NoUpdate final : public Updater {
 public:
  explicit NoUpdate(FlatParameters& flat) : flat_(flat) {}
  void add_micro_batch() override { flat_.zero_gradient(); }
  UpdateReport step() override { return {}; }

 private:
  FlatParameters& flat_;
};

// A network as its description has it; its weights don't matter.
struct PlannedNetwork {
  NetworkSpec network;
  std::optional<SdNetwork> sd;
  std::int64_t tokens = 0;  // of a prompt's embedding

  [[nodiscard]] std::unique_ptr<Denoiser> make() const {
    if (!sd) return make_denoiser(network, 0);
    auto denoiser = std::make_unique<SdDenoiser>(sd->unet, sd->schedule);
    const torch::NoGradGuard no_grad;
    for (auto& parameter : denoiser->module().parameters()) parameter.zero_();
    return denoiser;
  }
  [[nodiscard]] ImageShape image_shape() const {
    if (sd) return {sd->unet.in_channels, sd->unet.sample_size, sd->unet.sample_size};
    return {network.image_channels, network.image_size, network.image_size};
  }
  // [count,T,D]; undefined for networks without text.
  [[nodiscard]] torch::Tensor text(std::int64_t count) const {
    return sd ? torch::zeros({count, tokens, sd->unet.cross_attention_dim}) : torch::Tensor();
  }
};

// The networks of a job as its training holds them.
struct Networks {
  std::vector<std::unique_ptr<Denoiser>> denoisers;
  std::unique_ptr<BottleneckDiscriminator> discriminator;
  std::vector<std::unique_ptr<FlatParameters>> flats;

  void add(const PlannedNetwork& network, const JobSpec& job, bool trainable, bool with_discriminator = false) {
    denoisers.push_back(network.make());
    if (with_discriminator) discriminator = std::make_unique<BottleneckDiscriminator>(*denoisers.back(), 0);
    if (trainable && job.activation_checkpointing) denoisers.back()->recompute_in_backward(true);
    flats.push_back(std::make_unique<FlatParameters>(denoisers.back()->module(), trainable ? job.micro_batches : 1, trainable));
  }
};

torch::Tensor some_images(const Denoiser& denoiser, std::int64_t count) {
  const ImageShape shape = denoiser.image_shape();
  return torch::zeros({count, shape.channels, shape.height, shape.width});
}

Condition some_condition(const Denoiser& denoiser, std::int64_t count) {
  Condition condition;
  if (denoiser.num_classes() > 0) condition.labels = torch::zeros({count}, torch::kInt64);
  return condition;
}

void teacher_step(Networks& networks, std::int64_t rows) {
  Denoiser& denoiser = *networks.denoisers[0];
  const auto x = some_images(denoiser, rows);
  const auto t = torch::ones({rows});
  const auto mu = denoiser.denoise(diffuse(denoiser.schedule(), x, torch::ones_like(x), t), t,
                                   some_condition(denoiser, rows));
  denoising_loss(denoiser.schedule(), mu, x, t, rows).backward();
}

void distill_step(Networks& networks, const PlannedNetwork& network, const Distance& distance, const DistillSpec& spec,
                  std::int64_t rows, std::int64_t pairs) {
  Denoiser& generator = *networks.denoisers[0];
  MicroBatch batch;
  batch.num_samples = rows;
  if (rows > 0) batch.text = network.text(rows);
  if (pairs > 0) {
    batch.pair_text = network.text(pairs);
    batch.pair_noise = some_images(generator, pairs);
    batch.pair_image = some_images(generator, pairs);
    batch.pair_label = torch::zeros({pairs}, torch::kInt64);
  }
  if (networks.discriminator && rows > 0) {
    batch.real_image = some_images(generator, rows);
    batch.real_label = torch::zeros({rows}, torch::kInt64);
    batch.real_text = network.text(rows);
  }
  DmdSettings settings;
  const Parametrisation parametrisation = parametrisation_of(spec, generator);
  settings.t_G = parametrisation.t_G;
  settings.global_batch = rows;
  settings.global_pairs = pairs;
  settings.score = parametrisation.score;
  settings.fake = parametrisation.fake;
  settings.gan = parametrisation.gan;
  settings.regression_joins_dm = spec.dmd.regression_joins_dm;
  GuidedDenoiser guided(*networks.denoisers[1], spec.dmd.guidance_scale, network.text(1));
  NoUpdate update_generator(*networks.flats[0]), update_fake(*networks.flats[2]);
  if (rows > 0) {
    dmd_step({generator, guided, *networks.denoisers[2], networks.discriminator.get()}, settings, 0, std::span(&batch, 1), distance,
             update_generator, update_fake);
  } else {
    regression_step(generator, settings, std::span(&batch, 1), distance, update_generator);
  }
}

// Peak of `step(k)`, a step of k of a micro-batch's rows, above what was resident before. The first row brings what is made once;
// the second tells what each further row adds. A small step is then run as it is; a large one follows in proportion.
template <class Step>
std::int64_t measured_activations(std::int64_t rows, Step step) {
  const std::int64_t before = settled_resident_bytes();
  forget_peak();
  step(std::int64_t{1});
  const std::int64_t one = peak_resident_bytes() - before;
  if (rows == 1) return one;
  step(std::int64_t{2});
  const std::int64_t two = peak_resident_bytes() - before;
  const std::int64_t whole = one + (rows - 1) * (two - one);
  if (whole > kSmallStep) return whole;
  step(rows);
  return peak_resident_bytes() - before;
}

nlohmann::json to_json(const MemoryPlan& plan) {
  return {{"parameters", plan.parameters},   {"gradients", plan.gradients}, {"sum_buffers", plan.sum_buffers},
          {"moments", plan.moments},         {"average", plan.average},     {"checkpoint_copy", plan.checkpoint_copy},
          {"exchange", plan.exchange},       {"process", plan.process},     {"activations", plan.activations},
          {"total", plan.total()}};
}

std::int64_t pair_bytes(const ImageShape& shape, std::int64_t count) {
  return count * (2 * shape.channels * shape.height * shape.width * kFloat + 2 * 8);
}

// What other jobs of the pipeline will have made.
struct Products {
  std::map<std::string, NetworkSpec> networks;   // of sigma, by job
  std::map<std::string, std::string> text_bases;  // base folders of text teachers, by job
  std::map<std::string, std::int64_t> pair_sets;  // rows, by job

  [[nodiscard]] PlannedNetwork network(const std::string& teacher, const std::string& like, const std::string& prompts) const {
    if (!teacher.starts_with("@")) return existing(teacher, like, prompts);
    if (const auto base = text_bases.find(teacher.substr(1)); base != text_bases.end()) return existing(base->second, "", prompts);
    const auto found = networks.find(teacher.substr(1));
    if (found == networks.end()) {
      throw Error(ErrorCode::kMismatch, teacher + ": expected a train_teacher or train_text_teacher job of this pipeline");
    }
    return {found->second, {}, 0};
  }
  [[nodiscard]] static PlannedNetwork existing(const std::string& teacher, const std::string& like, const std::string& prompts) {
    PlannedNetwork planned;
    if (!like.empty() || file_exists(teacher + "/model_index.json")) {
      planned.sd = read_sd_network({teacher, like, ""});
    } else {
      const nlohmann::json network = read_model_config(teacher).at("network");
      if (is_sd_network(network)) {
        planned.sd = sd_network_from_json(network, teacher + "/config.json");
      } else {
        planned.network = network_spec_from_json(network, teacher + "/config.json");
      }
    }
    if (planned.sd.has_value() == prompts.empty()) {
      throw Error(ErrorCode::kMismatch, "prompts: expected " + std::string(planned.sd ? "some" : "none") + " for " + teacher + ", found " +
                                            (planned.sd ? "none" : prompts));
    }
    // Prompts that another job will encode: as long as CLIP's.
    if (planned.sd) planned.tokens = prompts.starts_with("@") ? ClipTextConfig{}.max_position_embeddings : PromptEmbeddings(prompts).info().tokens;
    return planned;
  }
  [[nodiscard]] std::int64_t pairs(const std::string& set) const {
    return set.starts_with("@") ? pair_sets.at(set.substr(1)) : read_pair_manifest(set).info.count;
  }
};

nlohmann::json describe(const JobSpec& spec, int ranks, const Networks& networks) {
  const FlatParameters& flat = *networks.flats[0];
  std::int64_t count = 0;
  for (const FlatView& view : flat.views()) count += view.length;
  return {{"name", spec.name},           {"kind", spec.kind}, {"ranks", ranks}, {"micro_batches", spec.micro_batches},
          {"networks", networks.flats.size()}, {"parameters", count}};
}

nlohmann::json plan_teacher(const JobSpec& spec, const TrainTeacherSpec& options, int ranks) {
  const ImageDataset dataset(options.dataset);
  const std::int64_t process = settled_resident_bytes();
  Networks networks;
  networks.add({options.network, {}, 0}, spec, true);
  MemoryPlan plan = state_plan(spec, networks.flats[0]->length(), ranks);
  plan.process = process;
  plan.activations =
      measured_activations(options.batch / spec.micro_batches, [&](std::int64_t rows) { teacher_step(networks, rows); });
  nlohmann::json planned = describe(spec, ranks, networks);
  planned["images"] = options.images;
  planned["bytes_a_rank"] = to_json(plan);
  return planned;
}

nlohmann::json plan_distill(const JobSpec& spec, const DistillSpec& options, int ranks, const Products& products) {
  const PlannedNetwork network = products.network(options.teacher, options.like, options.prompts);
  const std::unique_ptr<Distance> distance = load_distance(options, spec.activation_checkpointing).distance;
  std::optional<ImageDataset> real_images;
  if (options.dmd.gan.is_on()) real_images.emplace(options.dmd.gan.dataset);
  const std::int64_t process = settled_resident_bytes();
  Networks networks;
  networks.add(network, spec, true);   // generator
  require_memory(state_plan(spec, networks.flats[0]->length(), ranks), 1);
  networks.add(network, spec, false);  // real score
  networks.add(network, spec, true, options.dmd.gan.is_on());  // fake score
  MemoryPlan plan = state_plan(spec, networks.flats[0]->length(), ranks, networks.flats[2]->length() - networks.flats[0]->length());
  plan.process = process;
  const std::int64_t rows = options.dmd.iterations > 0 ? options.dmd.batch / spec.micro_batches : 0;
  const std::int64_t pairs = options.dmd.iterations > 0 ? options.dmd.pairs / spec.micro_batches : 0;
  const std::int64_t warmup = options.warmup.iterations > 0 ? options.warmup.pairs / spec.micro_batches : 0;
  if (warmup > 0) {
    plan.activations = measured_activations(
        warmup, [&](std::int64_t count) { distill_step(networks, network, *distance, options, 0, count); });
  }
  if (rows > 0) {
    // Pairs grow with the samples, in the proportion of the whole micro-batch.
    plan.activations = std::max(plan.activations, measured_activations(rows, [&](std::int64_t count) {
                                  distill_step(networks, network, *distance, options, count, (pairs * count + rows - 1) / rows);
                                }));
  }
  nlohmann::json planned = describe(spec, ranks, networks);
  const std::int64_t dmd_images = num_generator_turns(options, options.dmd.iterations) * (options.dmd.batch + options.dmd.pairs);
  planned["images"] = options.warmup.iterations * options.warmup.pairs + dmd_images;
  const std::int64_t all = options.pairs.empty() ? 0 : products.pairs(options.pairs);
  const std::int64_t used = options.max_pairs > 0 ? std::min(all, options.max_pairs) : all;
  planned["pair_set_bytes"] = pair_bytes(networks.denoisers[0]->image_shape(), used);
  planned["bytes_a_rank"] = to_json(plan);
  return planned;
}

nlohmann::json plan_pairs(const JobSpec& spec, const GeneratePairsSpec& options, int ranks, const Products& products) {
  const ImageShape shape = products.network(options.teacher, options.like, options.prompts).image_shape();
  return {{"name", spec.name},       {"kind", spec.kind}, {"ranks", ranks}, {"images", options.count},
          {"pair_set_bytes", pair_bytes(shape, options.count)}};
}

}  // namespace

std::int64_t MemoryPlan::state() const { return parameters + gradients + sum_buffers + moments + average; }
std::int64_t MemoryPlan::total() const { return process + state() + checkpoint_copy + exchange + activations; }

MemoryPlan state_plan(const JobSpec& spec, std::int64_t flat_length, int ranks, std::int64_t head_length) {
  const bool distills = spec.kind == "distill";
  const std::int64_t networks = distills ? 3 : 1, trained = distills ? 2 : 1;
  const bool exact = spec.reduction == "exact";
  const std::int64_t whole = flat_length * kFloat, head = head_length * kFloat;
  const std::int64_t networks_whole = networks * whole + head, trained_whole = trained * whole + head;
  const std::int64_t pieces = exact ? ranks : 1;
  const auto leaves = static_cast<std::uint64_t>(std::max<std::int64_t>(1, spec.micro_batches / ranks));
  MemoryPlan plan;
  plan.parameters = networks_whole;
  plan.gradients = trained_whole;
  plan.sum_buffers = trained_whole * std::max<std::int64_t>(1, std::bit_width(leaves) - 1);
  plan.moments = 2 * trained_whole / pieces;
  plan.average = whole / pieces;
  plan.checkpoint_copy = 3 * trained_whole / ranks + whole / ranks;
  plan.exchange = ranks > 1 ? std::min(kExchangeFloats * kFloat, whole + head) : 0;
  return plan;
}

std::int64_t peak_resident_bytes() { return proc_field("/proc/self/status", "VmHWM"); }

std::int64_t available_memory() {
  std::int64_t bytes = proc_field("/proc/meminfo", "MemAvailable");
  std::ifstream limit_file("/sys/fs/cgroup/memory.max"), used_file("/sys/fs/cgroup/memory.current");
  std::int64_t limit = 0, used = 0;
  if (limit_file >> limit && used_file >> used) bytes = std::min(bytes, std::max<std::int64_t>(0, limit - used));
  return bytes;
}

void require_memory(const MemoryPlan& plan, int ranks_here) {
  const std::int64_t needed = plan.state() * ranks_here, available = available_memory();
  if (available < 0 || needed <= available) return;
  throw Error(ErrorCode::kConflict,
              "memory: expected room for " + std::to_string(needed) + " bytes of networks and optimizer (" +
                  std::to_string(ranks_here) + " ranks on this machine, " + std::to_string(plan.state()) +
                  " bytes each), found " + std::to_string(available) + " bytes; 'onestep plan' shows what takes them");
}

FlatParameters& that_fits(FlatParameters& flat, const RunContext& context) { return that_fits(flat, flat, context); }

FlatParameters& that_fits(FlatParameters& flat, const FlatParameters& fake, const RunContext& context) {
  const int ranks = context.communicator.size();
  const char* local = std::getenv("OMPI_COMM_WORLD_LOCAL_SIZE");
  require_memory(state_plan(context.spec, flat.length(), ranks, fake.length() - flat.length()), local != nullptr ? std::max(1, std::atoi(local)) : ranks);
  return flat;
}

nlohmann::json plan_job(const Pipeline& pipeline, const std::string& name, int ranks) {
  Products products;
  for (const PipelineJob& job : pipeline.jobs) {
    const auto* teacher = std::get_if<TrainTeacherSpec>(&job.spec.options);
    if (teacher != nullptr) products.networks[job.spec.name] = teacher->network;
    const auto* text_teacher = std::get_if<TrainTextTeacherSpec>(&job.spec.options);
    if (text_teacher != nullptr) products.text_bases[job.spec.name] = text_teacher->base;
    const auto* pairs = std::get_if<GeneratePairsSpec>(&job.spec.options);
    if (pairs != nullptr) products.pair_sets[job.spec.name] = pairs->count;
  }
  const auto found = std::find_if(pipeline.jobs.begin(), pipeline.jobs.end(),
                                  [&name](const PipelineJob& job) { return job.spec.name == name; });
  if (found == pipeline.jobs.end()) {
    throw Error(ErrorCode::kUsage, "--plan " + name + ": expected a job of " + pipeline.name + ", found none of that name");
  }
  const JobSpec& spec = found->spec;
  const int job_ranks = ranks > 0 ? ranks : spec.ranks;
  nlohmann::json planned;
  if (const auto* teacher = std::get_if<TrainTeacherSpec>(&spec.options)) {
    planned = plan_teacher(spec, *teacher, job_ranks);
  } else if (const auto* pairs = std::get_if<GeneratePairsSpec>(&spec.options)) {
    planned = plan_pairs(spec, *pairs, job_ranks, products);
  } else if (const auto* distill = std::get_if<DistillSpec>(&spec.options)) {
    planned = plan_distill(spec, *distill, job_ranks, products);
  } else {
    throw Error(ErrorCode::kUsage, "--plan " + name + ": expected a train_teacher, generate_pairs or distill job, found " +
                                       spec.kind);
  }
  planned["available_bytes"] = available_memory();
  return planned;
}

}  // namespace onestep
