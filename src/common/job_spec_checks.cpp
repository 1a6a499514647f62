#include "common/job_spec_checks.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <set>

namespace onestep {
namespace {

using nlohmann::json;

std::string number_list(const std::vector<std::int64_t>& numbers) {
  std::string text;
  for (const std::int64_t number : numbers)
    text += (text.empty() ? "" : ", ") + std::to_string(number);
  return text;
}

void check_divisible(ConfigReader& reader, const std::string& key, std::int64_t value,
                     std::int64_t micro_batches) {
  if (value % micro_batches == 0) return;
  reader.violation(key, "expected a multiple of micro_batches (" + std::to_string(micro_batches) +
                            "), found " + std::to_string(value));
}

// The channels of every tensor that the network normalises: those entering and leaving each block.
std::set<std::int64_t> normalized_widths(const NetworkSpec& network) {
  std::set<std::int64_t> widths;
  std::vector<std::int64_t> skips;
  std::int64_t channels = network.network_class == "song_unet" ? network.model_channels
                                                               : network.model_channels * network.channel_mult.front();
  for (std::size_t level = 0; level < network.channel_mult.size(); ++level) {
    skips.push_back(channels);
    for (std::int64_t block = 0; block < network.num_blocks; ++block) {
      widths.insert(channels);
      channels = network.model_channels * network.channel_mult[level];
      skips.push_back(channels);
    }
  }
  for (std::size_t level = network.channel_mult.size(); level-- > 0;) {
    for (std::int64_t block = 0; block <= network.num_blocks; ++block) {
      widths.insert(channels);
      widths.insert(channels + skips.back());
      skips.pop_back();
      channels = network.model_channels * network.channel_mult[level];
      widths.insert(channels);
    }
  }
  return widths;
}

void check_kind(ConfigReader& reader, const JobSpec& job, const TrainDetectorSpec& spec) {
  check_divisible(reader, "batch", spec.batch, job.micro_batches);
}

void check_kind(ConfigReader& reader, const JobSpec& job, const TrainTeacherSpec& spec) {
  check_divisible(reader, "batch", spec.batch, job.micro_batches);
  if (spec.dataset.resolution != 0 && spec.dataset.resolution != spec.network.image_size) {
    reader.violation("network/image_size", "expected the dataset's resolution (" +
                                               std::to_string(spec.dataset.resolution) +
                                               "), found " +
                                               std::to_string(spec.network.image_size));
  }
  if (spec.network.dropout != 0) {
    reader.violation("network/dropout", "expected 0: training here drops nothing; found " + json(spec.network.dropout).dump());
  }
}

void check_kind(ConfigReader& reader, const JobSpec& job, const TrainAutoencoderSpec& spec) {
  check_divisible(reader, "batch", spec.batch, job.micro_batches);
  if (spec.config.starts_with("@")) reader.violation("config", "expected a folder, found a reference to a job");
}

void check_kind(ConfigReader&, const JobSpec&, const EncodeSpec&) {}

void check_kind(ConfigReader& reader, const JobSpec& job, const TrainTextTeacherSpec& spec) {
  check_divisible(reader, "batch", spec.batch, job.micro_batches);
  if (spec.base.starts_with("@")) reader.violation("base", "expected a pipeline folder, found a reference to a job");
}

// A model that is a single file needs a pipeline folder beside it; any other has its own configuration.
void check_like(ConfigReader& reader, const std::string& model, const std::string& like) {
  const bool is_file = model.ends_with(".safetensors");
  if (is_file && like.empty()) {
    reader.violation("like", "expected a pipeline folder for a model of a single .safetensors file, found nothing (required)");
  } else if (!is_file && !like.empty()) {
    reader.violation("like", "expected none for a model that is no .safetensors file, found \"" + like + "\"");
  }
}

// The same where prompts come from a job of their own: a single file is a text-to-image model.
void check_like_and_prompts(ConfigReader& reader, const std::string& model, const std::string& like, const std::string& prompts) {
  check_like(reader, model, like);
  if (model.ends_with(".safetensors") && prompts.empty()) {
    reader.violation("prompts", "expected an encode_prompts folder or \"@job\" for a model of a single .safetensors file, "
                                "found nothing (required)");
  }
}

void check_kind(ConfigReader& reader, const JobSpec&, const EncodePromptsSpec& spec) {
  check_like(reader, spec.teacher, spec.like);
  if (spec.prompts.starts_with("@")) reader.violation("prompts", "expected a file, found a reference to a job");
}

void check_kind(ConfigReader& reader, const JobSpec&, const GeneratePairsSpec& spec) {
  check_like_and_prompts(reader, spec.teacher, spec.like, spec.prompts);
}

// What belongs to networks of sigma, or to those of discrete steps and text, is refused for the other.
void check_parametrisation(ConfigReader& reader, const DistillSpec& spec) {
  const DistillSpec usual;
  const bool is_text = !spec.prompts.empty();
  const auto only = [&](const char* key, const json& found, const json& expected, bool for_text) {
    if (found == expected || for_text == is_text) return;
    reader.violation(key, "expected " + expected.dump() + (is_text ? " with prompts" : " without prompts") + ", found " +
                              found.dump());
  };
  only("generator_sigma", spec.generator_sigma, usual.generator_sigma, false);
  only("dmd/sigma_lo", spec.dmd.sigma_lo, usual.dmd.sigma_lo, false);
  only("dmd/sigma_hi", spec.dmd.sigma_hi, usual.dmd.sigma_hi, false);
  only("dmd/gan/sigma_lo", spec.dmd.gan.sigma_lo, usual.dmd.gan.sigma_lo, false);
  only("dmd/gan/sigma_hi", spec.dmd.gan.sigma_hi, usual.dmd.gan.sigma_hi, false);
  only("dmd/gan/t_lo", spec.dmd.gan.t_lo, usual.dmd.gan.t_lo, true);
  only("dmd/gan/t_hi", spec.dmd.gan.t_hi, usual.dmd.gan.t_hi, true);
  only("dmd/t_lo", spec.dmd.t_lo, usual.dmd.t_lo, true);
  only("dmd/t_hi", spec.dmd.t_hi, usual.dmd.t_hi, true);
  only("dmd/guidance_scale", spec.dmd.guidance_scale, usual.dmd.guidance_scale, true);
  if (spec.dmd.t_lo >= spec.dmd.t_hi) {
    reader.violation("dmd/t_lo", "expected less than t_hi (" + json(spec.dmd.t_hi).dump() + "), found " + json(spec.dmd.t_lo).dump());
  }
  if ((is_text && spec.distance == "lpips") != !spec.decoder.empty()) {
    reader.violation("decoder", spec.decoder.empty() ? "expected an autoencoder's folder for lpips of latents, found nothing (required)"
                                                     : "expected none but for distance lpips with prompts, found \"" + spec.decoder + "\"");
  }
}

// Pairs, where something regresses; nothing of the regression, where nothing does.
void check_pairs(ConfigReader& reader, const DistillSpec& spec) {
  const bool regresses = spec.warmup.iterations > 0 || spec.dmd.pairs > 0, has_pairs = !spec.pairs.empty();
  if (regresses && !has_pairs) {
    reader.violation("pairs", "expected a path or \"@job\", found nothing (required unless warmup.iterations, dmd.pairs and "
                              "dmd.lambda_reg are 0)");
  } else if (!regresses && has_pairs) {
    reader.violation("pairs", "expected none when warmup.iterations and dmd.pairs are 0, found \"" + spec.pairs + "\"");
  }
  if (!regresses && spec.max_pairs != 0) {
    reader.violation("max_pairs", "expected 0 without pairs, found " + std::to_string(spec.max_pairs));
  }
  if (!regresses && spec.distance != "l2") {
    reader.violation("distance", "expected l2 without pairs, found " + spec.distance);
  }
  if (spec.dmd.pairs == 0 && spec.dmd.lambda_reg > 0) {
    reader.violation("dmd/lambda_reg",
                     "expected 0 when dmd.pairs is 0, found " + json(spec.dmd.lambda_reg).dump());
  }
  if (spec.dmd.pairs == 0 && spec.dmd.regression_joins_dm) {
    reader.violation("dmd/regression_joins_dm", "expected false when dmd.pairs is 0, found true");
  }
}

void check_gan(ConfigReader& reader, const DistillSpec& spec) {
  const DistillSpec::Gan& gan = spec.dmd.gan;
  if (gan == DistillSpec::Gan{}) return;
  const bool is_text = !spec.prompts.empty();
  if (!is_text && gan.dataset.path.empty()) {
    reader.violation("dmd/gan/dataset/path", "expected a file of real images for the discriminator, found nothing (required)");
  }
  if (is_text && gan.latents.empty()) {
    reader.violation("dmd/gan/latents", "expected a path or \"@job\" of real images' latents for the discriminator, found nothing "
                                        "(required with prompts)");
  }
  if (is_text && gan.dataset != DatasetSpec{}) {
    reader.violation("dmd/gan/dataset", "expected none with prompts, whose real images are dmd.gan.latents; found some");
  }
  if (!is_text && !gan.latents.empty()) {
    reader.violation("dmd/gan/latents", "expected none without prompts, found \"" + gan.latents + "\"");
  }
  if (gan.t_lo >= gan.t_hi) {
    reader.violation("dmd/gan/t_lo", "expected less than t_hi (" + json(gan.t_hi).dump() + "), found " + json(gan.t_lo).dump());
  }
  if (gan.sigma_lo >= gan.sigma_hi) {
    reader.violation("dmd/gan/sigma_lo", "expected less than sigma_hi (" + json(gan.sigma_hi).dump() + "), found " +
                                             json(gan.sigma_lo).dump());
  }
}

bool descends(const std::vector<double>& values) {
  return std::adjacent_find(values.begin(), values.end(), std::less_equal<>()) == values.end();
}

void check_student_timesteps(ConfigReader& reader, const DistillSpec& spec) {
  const std::vector<double>& t = spec.student_timesteps;
  if (t.empty()) return;
  if (!descends(t)) reader.violation("student_timesteps", "expected numbers that descend, found " + json(t).dump());
  if (!spec.prompts.empty()) {
    if (std::all_of(t.begin(), t.end(), [](double step) { return step == std::floor(step); })) return;
    reader.violation("student_timesteps", "expected whole steps with prompts, found " + json(t).dump());
  } else if (t.front() != spec.generator_sigma) {
    reader.violation("student_timesteps", "expected generator_sigma (" + json(spec.generator_sigma).dump() + ") first, found " +
                                              json(t.front()).dump());
  } else if (t.back() <= 0) {
    reader.violation("student_timesteps", "expected sigmas above 0, found " + json(t.back()).dump());
  }
}

void check_schedule(ConfigReader& reader, const DistillSpec& spec) {
  const std::vector<DistillSpec::Stage>& schedule = spec.dmd.schedule;
  const DistillSpec::Stage usual;
  for (std::size_t i = 0; i < schedule.size(); ++i) {
    const DistillSpec::Stage& stage = schedule[i];
    const std::string at = "dmd/schedule/" + std::to_string(i) + "/";
    const auto expected = [&](const char* key, const std::string& what, const json& found) {
      reader.violation(at + key, "expected " + what + ", found " + found.dump());
    };
    if (i > 0 && stage.from_iteration <= schedule[i - 1].from_iteration) {
      expected("from_iteration", "more than the stage before it (" + std::to_string(schedule[i - 1].from_iteration) + ")", stage.from_iteration);
    }
    if (stage.from_iteration >= spec.dmd.iterations) {
      expected("from_iteration", "less than dmd.iterations (" + std::to_string(spec.dmd.iterations) + ")", stage.from_iteration);
    }
    if (spec.dmd.pairs == 0 && stage.lambda_reg > 0) expected("lambda_reg", "0 when dmd.pairs is 0", stage.lambda_reg);
    if (spec.prompts.empty() && stage.t_hi != usual.t_hi) expected("t_hi", "none without prompts", stage.t_hi);
    if (stage.t_hi <= spec.dmd.t_lo) expected("t_hi", "more than t_lo (" + json(spec.dmd.t_lo).dump() + ")", stage.t_hi);
    if (spec.decoder.empty() && !stage.decoder.empty()) expected("decoder", "none where the spec has none", stage.decoder);
  }
}

void check_kind(ConfigReader& reader, const JobSpec& job, const DistillSpec& spec) {
  check_schedule(reader, spec);
  check_like_and_prompts(reader, spec.teacher, spec.like, spec.prompts);
  check_parametrisation(reader, spec);
  check_pairs(reader, spec);
  check_gan(reader, spec);
  check_student_timesteps(reader, spec);
  check_divisible(reader, "warmup/pairs", spec.warmup.pairs, job.micro_batches);
  check_divisible(reader, "dmd/batch", spec.dmd.batch, job.micro_batches);
  check_divisible(reader, "dmd/pairs", spec.dmd.pairs, job.micro_batches);
  if (spec.dmd.sigma_lo >= spec.dmd.sigma_hi) {
    reader.violation("dmd/sigma_lo", "expected less than sigma_hi (" +
                                         json(spec.dmd.sigma_hi).dump() + "), found " +
                                         json(spec.dmd.sigma_lo).dump());
  }
  if (spec.dmd.lambda_reg == 0 && spec.dmd.lambda_dm == 0 && !(spec.dmd.gan.is_on() && spec.dmd.gan.lambda_generator > 0)) {
    reader.violation("dmd/lambda_dm", "expected more than 0 when lambda_reg is 0, found 0");
  }
  if (spec.warmup.iterations + spec.dmd.iterations == 0) {
    reader.violation("dmd/iterations",
                     "expected at least one iteration in warmup or dmd, found none");
  }
  if ((spec.distance == "lpips") != !spec.lpips.weights.empty()) {
    reader.violation("lpips/weights", spec.distance == "lpips"
                                          ? "expected safetensors files for distance lpips, found none"
                                          : "expected none for distance " + spec.distance + ", found some");
  }
  const bool has_detector = !spec.evaluation.detector.empty();
  const bool has_dataset = !spec.evaluation.dataset.path.empty();
  if (has_detector != has_dataset) {
    reader.violation(has_detector ? "evaluation/dataset/path" : "evaluation/detector",
                     "expected both detector and dataset.path, or neither, found one of them");
  }
}

// A small detector: Fréchet distance and class accuracy against a dataset, nothing else.
void check_digit_detector(ConfigReader& reader, const EvaluateSpec& spec) {
  const std::string only = " for a detector that is no .safetensors file of Inception's weights, found ";
  if (spec.dataset.path.empty()) {
    reader.violation("dataset/path", "expected a string that is not empty, found nothing (required)");
  }
  if (spec.source == "images") reader.violation("source", "expected model or real_split_half" + only + "images");
  if (!spec.reference.empty()) reader.violation("reference", "expected none" + only + "\"" + spec.reference + "\"");
  if (spec.lanczos != 0) reader.violation("lanczos", "expected 0" + only + std::to_string(spec.lanczos));
  if (spec.metrics != std::vector<std::string>{"fid"}) {
    reader.violation("metrics", "expected [\"fid\"]" + only + json(spec.metrics).dump());
  }
}

void check_inception(ConfigReader& reader, const EvaluateSpec& spec) {
  const bool has_dataset = !spec.dataset.path.empty(), has_reference = !spec.reference.empty();
  const bool needs_one = spec.metrics != std::vector<std::string>{"is"};
  if (spec.source == "real_split_half") {
    reader.violation("source", "expected model or images for Inception, found real_split_half");
  } else if (has_dataset && has_reference) {
    reader.violation("reference", "expected either dataset or reference, found both");
  } else if (needs_one && !has_dataset && !has_reference) {
    reader.violation("reference", "expected a dataset or a reference for these metrics, found neither");
  }
}

void check_kind(ConfigReader& reader, const JobSpec&, const EvaluateSpec& spec) {
  const bool needs_model = spec.source == "model";
  if (needs_model && spec.model.empty()) {
    reader.violation("model",
                     "expected a path or \"@job\" for source model, found nothing (required)");
  }
  if (!needs_model && !spec.model.empty()) {
    reader.violation(
        "model", "expected no model for source " + spec.source + ", found \"" + spec.model + "\"");
  }
  check_like_and_prompts(reader, spec.model, spec.like, spec.prompts);
  if (!needs_model && !spec.prompts.empty()) {
    reader.violation("prompts", "expected none for source " + spec.source + ", found \"" + spec.prompts + "\"");
  }
  if ((spec.source == "images") != !spec.images.empty()) {
    reader.violation("images", spec.source == "images"
                                   ? "expected a folder for source images, found nothing (required)"
                                   : "expected no folder for source " + spec.source + ", found \"" + spec.images + "\"");
  }
  if (spec.detector.ends_with(".safetensors")) {
    check_inception(reader, spec);
  } else {
    check_digit_detector(reader, spec);
  }
}

void check_kind(ConfigReader&, const JobSpec&, const ExportSpec&) {}

void check_kind(ConfigReader& reader, const JobSpec&, const SampleSpec& spec) {
  check_like(reader, spec.model, spec.like);
  if (spec.model.ends_with(".safetensors") && spec.prompts.empty()) {
    reader.violation("prompts", "expected texts for a model of a single .safetensors file, found none (required)");
  }
}

}  // namespace

void check_name(ConfigReader& reader, const std::string& name) {
  if (name.empty() || is_job_name(name)) return;
  reader.violation(
      "name", "expected a letter, then letters, digits, '-' or '_', at most 64 in all, found \"" +
                  name.substr(0, 80) + "\"");
}

void check_ranks(ConfigReader& reader, const JobSpec& spec) {
  if (spec.activation_checkpointing && (!is_training_kind(spec.kind) || spec.kind == "train_detector")) {
    reader.violation("activation_checkpointing", "expected false for kind " + spec.kind + ", found true");
  }
  const std::int64_t micro_batches = spec.micro_batches;
  if (!std::has_single_bit(static_cast<std::uint64_t>(micro_batches))) {
    reader.violation("micro_batches", "expected a power of two from 1 to 1024, found " +
                                          std::to_string(micro_batches));
    return;
  }
  if (spec.kind == "export" || spec.kind == "sample" || spec.kind == "encode_prompts" || spec.kind == "encode") {
    if (spec.ranks != 1) {
      reader.violation(
          "ranks", "expected 1 for kind " + spec.kind + ", found " + std::to_string(spec.ranks));
    }
    return;
  }
  if (!is_training_kind(spec.kind) || spec.reduction != "exact" || micro_batches % spec.ranks == 0)
    return;
  std::vector<std::int64_t> legal;
  for (std::int64_t ranks = 1; ranks <= micro_batches; ranks *= 2) legal.push_back(ranks);
  reader.violation("ranks", "ranks " + std::to_string(spec.ranks) + " can't share " +
                                std::to_string(micro_batches) + " micro-batches: expected one of " +
                                number_list(legal) + ", found " + std::to_string(spec.ranks));
}

namespace {

// What holds for song_unet alone.
void check_song_unet(ConfigReader& reader, const NetworkSpec& network) {
  using Filter = std::vector<std::int64_t>;
  if (network.pixel_unshuffle != 1) {
    reader.violation("pixel_unshuffle", "expected 1 for song_unet, found " + std::to_string(network.pixel_unshuffle));
  }
  if (network.resample_filter != Filter{1, 1} && network.resample_filter != Filter{1, 3, 3, 1}) {
    reader.violation("resample_filter", "expected [1,1] or [1,3,3,1], found " + json(network.resample_filter).dump());
  }
}

}  // namespace

void check_network(ConfigReader& reader, const NetworkSpec& network) {
  if (network.network_class == "song_unet") check_song_unet(reader, network);
  if (network.channel_mult.empty()) {
    reader.violation("channel_mult", "expected at least one level, found none");
    return;
  }
  const auto levels = static_cast<std::int64_t>(network.channel_mult.size());
  const std::int64_t step = network.pixel_unshuffle << (levels - 1);
  if (network.image_size % step != 0) {
    reader.violation("image_size", "expected a multiple of pixel_unshuffle * 2^(levels - 1) = " +
                                       std::to_string(step) + ", found " +
                                       std::to_string(network.image_size));
    return;
  }
  if (network.model_channels % 4 != 0) {
    reader.violation("model_channels",
                     "expected a multiple of 4, found " + std::to_string(network.model_channels));
    return;
  }
  for (const std::int64_t width : normalized_widths(network)) {
    const std::int64_t groups = std::min<std::int64_t>(32, width / 4);
    if (width % groups == 0) continue;
    reader.violation("model_channels", "expected widths that share out into groups of a norm; " +
                                           std::to_string(groups) + " groups, found a width of " +
                                           std::to_string(width));
    return;
  }
  // Attention: at the listed resolutions, and always in the middle, at the last level.
  std::vector<std::int64_t> resolutions;
  for (std::int64_t level = 0; level < levels; ++level) {
    const std::int64_t resolution = network.image_size / network.pixel_unshuffle >> level;
    resolutions.push_back(resolution);
    const bool attends =
        level == levels - 1 || std::count(network.attention_resolutions.begin(),
                                          network.attention_resolutions.end(), resolution) > 0;
    const std::int64_t width =
        network.model_channels * network.channel_mult[static_cast<std::size_t>(level)];
    if (network.network_class == "adm_unet" && attends && width % network.channels_per_head != 0) {
      reader.violation("channels_per_head", "expected a divisor of the " + std::to_string(width) +
                                                " channels at " + std::to_string(resolution) + "x" +
                                                std::to_string(resolution) + ", found " +
                                                std::to_string(network.channels_per_head));
      return;
    }
  }
  for (const std::int64_t wanted : network.attention_resolutions) {
    if (std::count(resolutions.begin(), resolutions.end(), wanted) > 0) continue;
    reader.violation("attention_resolutions", "expected some of the network's resolutions " +
                                                  number_list(resolutions) + ", found " +
                                                  std::to_string(wanted));
  }
}

void check_sampler(ConfigReader& reader, const SamplerSpec& sampler) {
  const std::vector<double>& t = sampler.timesteps;
  if ((sampler.kind == "few_step") != !t.empty()) {
    reader.violation("timesteps", t.empty() ? "expected the student's timesteps for few_step, found none"
                                            : "expected none for " + sampler.kind + ", found " + json(t).dump());
  } else if (!descends(t)) {
    reader.violation("timesteps", "expected numbers that descend, found " + json(t).dump());
  }
  if (sampler.sigma_min < sampler.sigma_max) return;
  reader.violation("sigma_min", "expected less than sigma_max (" + json(sampler.sigma_max).dump() +
                                    "), found " + json(sampler.sigma_min).dump());
}

void check_options(ConfigReader& reader, const JobSpec& spec) {
  if (!std::has_single_bit(static_cast<std::uint64_t>(spec.micro_batches))) return;
  std::visit([&](const auto& options) { check_kind(reader, spec, options); }, spec.options);
}

}  // namespace onestep
