#include "common/job_spec.h"

#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <set>
#include <type_traits>
#include <utility>

#include "common/job_spec_fields.h"

namespace onestep {
namespace {

using nlohmann::json;

constexpr std::size_t kMaxNameLength = 64;

// ---- Defaults that differ from the structs' own: the recipe of each kind. ----

OptimizerSpec detector_optimizer() {
  OptimizerSpec optimizer;
  optimizer.learning_rate = 1e-3;
  optimizer.beta2 = 0.999;
  optimizer.weight_decay = 1e-4;
  optimizer.schedule = "cosine";
  return optimizer;
}

OptimizerSpec teacher_optimizer() {
  OptimizerSpec optimizer;
  optimizer.learning_rate = 2e-3;
  optimizer.rampup_iterations = 100;
  optimizer.schedule = "cosine";
  return optimizer;
}

OptimizerSpec warmup_optimizer() {
  OptimizerSpec optimizer;
  optimizer.learning_rate = 1e-3;
  optimizer.rampup_iterations = 20;
  return optimizer;
}

OptimizerSpec dmd_optimizer(double learning_rate) {
  OptimizerSpec optimizer;
  optimizer.learning_rate = learning_rate;
  optimizer.beta1 = 0.0;
  optimizer.clip_norm = 1.0;
  return optimizer;
}

JobOptions default_options(const std::string& kind) {
  if (kind == "train_detector") {
    TrainDetectorSpec spec;
    spec.optimizer = detector_optimizer();
    return spec;
  }
  if (kind == "train_teacher") {
    TrainTeacherSpec spec;
    spec.optimizer = teacher_optimizer();
    return spec;
  }
  if (kind == "generate_pairs") return GeneratePairsSpec{};
  if (kind == "distill") {
    DistillSpec spec;
    spec.warmup.optimizer = warmup_optimizer();
    spec.dmd.generator = dmd_optimizer(1e-4);
    spec.dmd.fake = dmd_optimizer(1e-3);
    return spec;
  }
  if (kind == "evaluate") return EvaluateSpec{};
  if (kind == "export") return ExportSpec{};
  return SampleSpec{};
}

// ---- Checks over more than one field. ----

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

void check_name(ConfigReader& reader, const std::string& name) {
  if (name.empty() || is_job_name(name)) return;
  reader.violation("name", "expected a letter, then letters, digits, '-' or '_', at most " +
                               std::to_string(kMaxNameLength) + " in all, found \"" +
                               name.substr(0, 80) + "\"");
}

void check_ranks(ConfigReader& reader, const JobSpec& spec) {
  const std::int64_t micro_batches = spec.micro_batches;
  if (!std::has_single_bit(static_cast<std::uint64_t>(micro_batches))) {
    reader.violation("micro_batches", "expected a power of two from 1 to 1024, found " +
                                          std::to_string(micro_batches));
    return;
  }
  if (spec.kind == "export" || spec.kind == "sample") {
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

// The channels of every tensor that the network normalises: those entering and leaving each block.
std::set<std::int64_t> normalized_widths(const NetworkSpec& network) {
  std::set<std::int64_t> widths;
  std::vector<std::int64_t> skips;
  std::int64_t channels = network.model_channels * network.channel_mult.front();
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

void check_network(ConfigReader& reader, const NetworkSpec& network) {
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
    if (attends && width % network.channels_per_head != 0) {
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
  if (sampler.sigma_min < sampler.sigma_max) return;
  reader.violation("sigma_min", "expected less than sigma_max (" + json(sampler.sigma_max).dump() +
                                    "), found " + json(sampler.sigma_min).dump());
}

void check_options(ConfigReader& reader, const JobSpec& job, const TrainDetectorSpec& spec) {
  check_divisible(reader, "batch", spec.batch, job.micro_batches);
}

void check_options(ConfigReader& reader, const JobSpec& job, const TrainTeacherSpec& spec) {
  check_divisible(reader, "batch", spec.batch, job.micro_batches);
  if (spec.dataset.resolution != 0 && spec.dataset.resolution != spec.network.image_size) {
    reader.violation("network/image_size", "expected the dataset's resolution (" +
                                               std::to_string(spec.dataset.resolution) +
                                               "), found " +
                                               std::to_string(spec.network.image_size));
  }
}

void check_options(ConfigReader&, const JobSpec&, const GeneratePairsSpec&) {}

void check_options(ConfigReader& reader, const JobSpec& job, const DistillSpec& spec) {
  check_divisible(reader, "warmup/pairs", spec.warmup.pairs, job.micro_batches);
  check_divisible(reader, "dmd/batch", spec.dmd.batch, job.micro_batches);
  check_divisible(reader, "dmd/pairs", spec.dmd.pairs, job.micro_batches);
  if (spec.dmd.sigma_lo >= spec.dmd.sigma_hi) {
    reader.violation("dmd/sigma_lo", "expected less than sigma_hi (" +
                                         json(spec.dmd.sigma_hi).dump() + "), found " +
                                         json(spec.dmd.sigma_lo).dump());
  }
  if (spec.dmd.pairs == 0 && spec.dmd.lambda_reg > 0) {
    reader.violation("dmd/lambda_reg",
                     "expected 0 when dmd.pairs is 0, found " + json(spec.dmd.lambda_reg).dump());
  }
  if (spec.dmd.lambda_reg == 0 && spec.dmd.lambda_dm == 0) {
    reader.violation("dmd/lambda_dm", "expected more than 0 when lambda_reg is 0, found 0");
  }
  if (spec.warmup.iterations + spec.dmd.iterations == 0) {
    reader.violation("dmd/iterations",
                     "expected at least one iteration in warmup or dmd, found none");
  }
  const bool has_detector = !spec.evaluation.detector.empty();
  const bool has_dataset = !spec.evaluation.dataset.path.empty();
  if (has_detector != has_dataset) {
    reader.violation(has_detector ? "evaluation/dataset/path" : "evaluation/detector",
                     "expected both detector and dataset.path, or neither, found one of them");
  }
}

void check_options(ConfigReader& reader, const JobSpec&, const EvaluateSpec& spec) {
  const bool needs_model = spec.source == "model";
  if (needs_model && spec.model.empty()) {
    reader.violation("model",
                     "expected a path or \"@job\" for source model, found nothing (required)");
  }
  if (!needs_model && !spec.model.empty()) {
    reader.violation(
        "model", "expected no model for source " + spec.source + ", found \"" + spec.model + "\"");
  }
}

void check_options(ConfigReader&, const JobSpec&, const ExportSpec&) {}

void check_options(ConfigReader&, const JobSpec&, const SampleSpec&) {}

// ---- The three uses of the field lists. ----

// Reads each field and records what is wrong with it.
class Reading {
 public:
  Reading(ConfigReader& reader, const std::string& base) : reader_(reader), base_(base) {}

  void path(const char* key, std::string& value, Presence presence = Presence::kOptional) {
    value = presence == Presence::kRequired ? reader_.required_text(key) : reader_.text(key, value);
    check_path(key, value);
    value = resolve_path(value, base_);
  }
  void paths(const char* key, std::vector<std::string>& values) {
    values = reader_.texts(key, values);
    for (std::string& value : values) {
      if (value.empty())
        reader_.violation(key, "expected paths or \"@job\", found an empty string");
      check_path(key, value);
      value = resolve_path(value, base_);
    }
  }
  template <class Integer>
  void integer(const char* key, Integer& value, std::int64_t min, std::int64_t max) {
    value = static_cast<Integer>(reader_.integer(key, static_cast<std::int64_t>(value), min, max));
  }
  void integers(const char* key, std::vector<std::int64_t>& value, std::int64_t min,
                std::int64_t max) {
    value = reader_.integers(key, value, min, max);
  }
  void number(const char* key, double& value, double min, double max) {
    value = reader_.number(key, value, min, max);
  }
  void choice(const char* key, std::string& value, const std::vector<std::string>& allowed) {
    value = reader_.choice(key, value, allowed);
  }
  template <class Struct, class... More>
  void object(const char* key, Struct& value, More... more) {
    ConfigReader nested = reader_.object(key);
    Reading reading(nested, base_);
    describe(reading, value, more...);
    if (nested.violations().empty()) {
      if constexpr (std::is_same_v<Struct, NetworkSpec>) check_network(nested, value);
      if constexpr (std::is_same_v<Struct, SamplerSpec>) check_sampler(nested, value);
    }
    reader_.absorb(nested);
  }

 private:
  void check_path(const char* key, const std::string& value) {
    if (value.find('\0') != std::string::npos) {
      reader_.violation(key, "expected a path, found a text with a zero byte");
    } else if (!value.empty() && value.front() == '@' && !is_job_name(value.substr(1))) {
      reader_.violation(key,
                        "expected a job's name after '@', found \"" + value.substr(0, 80) + "\"");
    }
  }

  ConfigReader& reader_;
  const std::string& base_;
};

// Puts each field into a JSON object.
class Writing {
 public:
  explicit Writing(json& object) : object_(object) {}

  void path(const char* key, std::string& value, Presence = Presence::kOptional) {
    object_[key] = value;
  }
  void paths(const char* key, std::vector<std::string>& values) { object_[key] = values; }
  template <class Integer>
  void integer(const char* key, Integer& value, std::int64_t, std::int64_t) {
    object_[key] = value;
  }
  void integers(const char* key, std::vector<std::int64_t>& value, std::int64_t, std::int64_t) {
    object_[key] = value;
  }
  void number(const char* key, double& value, double, double) { object_[key] = value; }
  void choice(const char* key, std::string& value, const std::vector<std::string>&) {
    object_[key] = value;
  }
  template <class Struct, class... More>
  void object(const char* key, Struct& value, More... more) {
    json nested = json::object();
    Writing writing(nested);
    describe(writing, value, more...);
    object_[key] = std::move(nested);
  }

 private:
  json& object_;
};

// Calls `visit` on each path and nothing else.
template <class Visit>
class VisitingPaths {
 public:
  explicit VisitingPaths(Visit visit) : visit_(std::move(visit)) {}

  void path(const char*, std::string& value, Presence = Presence::kOptional) { visit_(value); }
  void paths(const char*, std::vector<std::string>& values) {
    for (std::string& value : values) visit_(value);
  }
  template <class... Ignored>
  void integer(Ignored&&...) {}
  template <class... Ignored>
  void integers(Ignored&&...) {}
  template <class... Ignored>
  void number(Ignored&&...) {}
  void choice(const char*, std::string&, const std::vector<std::string>&) {}
  template <class Struct, class... More>
  void object(const char*, Struct& value, More... more) {
    describe(*this, value, more...);
  }

 private:
  Visit visit_;
};

template <class Visit>
void visit_references(JobSpec& spec, Visit visit) {
  VisitingPaths visitor([&visit](std::string& path) {
    if (!path.empty() && path.front() == '@') visit(path);
  });
  std::visit([&visitor](auto& options) { describe(visitor, options); }, spec.options);
}

template <class Struct>
json written(Struct value) {
  json object = json::object();
  Writing writing(object);
  describe(writing, value);
  return object;
}

void collect_differences(const json& expected, const json& found, const std::string& pointer,
                         std::vector<std::string>& differences) {
  if (expected.is_object() && found.is_object()) {
    std::set<std::string> keys;
    for (const auto& [key, value] : expected.items()) keys.insert(key);
    for (const auto& [key, value] : found.items()) keys.insert(key);
    for (const std::string& key : keys) {
      const std::string inner = pointer + "/" + key;
      if (!expected.contains(key)) {
        differences.push_back(inner + ": expected nothing, found " + found[key].dump());
      } else if (!found.contains(key)) {
        differences.push_back(inner + ": expected " + expected[key].dump() + ", found nothing");
      } else {
        collect_differences(expected[key], found[key], inner, differences);
      }
    }
  } else if (expected != found) {
    differences.push_back((pointer.empty() ? "/" : pointer) + ": expected " + expected.dump() +
                          ", found " + found.dump());
  }
}

}  // namespace

const std::vector<std::string>& job_kinds() {
  static const std::vector<std::string> kinds = {
      "train_detector", "train_teacher", "generate_pairs", "distill",
      "evaluate",       "export",        "sample"};
  return kinds;
}

bool is_training_kind(const std::string& kind) {
  return kind == "train_detector" || kind == "train_teacher" || kind == "distill";
}

bool is_job_name(const std::string& name) {
  const auto is_letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
  const auto is_allowed = [&](char c) {
    return is_letter(c) || (c >= '0' && c <= '9') || c == '-' || c == '_';
  };
  return !name.empty() && name.size() <= kMaxNameLength && is_letter(name.front()) &&
         std::all_of(name.begin(), name.end(), is_allowed);
}

ParsedJobSpec check_job_spec(const json& document, const std::string& base,
                             const std::string& pointer) {
  ParsedJobSpec parsed;
  JobSpec& spec = parsed.spec;
  ConfigReader reader(document, pointer);
  Reading reading(reader, base);
  if (!document.is_object()) {
    parsed.violations = reader.violations();
    return parsed;
  }
  spec.name = reader.required_text("name");
  check_name(reader, spec.name);
  describe(reading, spec);
  if (!spec.output.empty() && spec.output.front() == '@') {
    reader.violation("output", "expected a folder, found a reference to a job");
  }
  if (spec.device != "cpu") {
    reader.violation("device",
                     "expected cpu: this build computes on the CPU only; found " + spec.device);
  }
  if (reader.has("kind")) {
    spec.kind = reader.choice("kind", "", job_kinds());
  } else {
    reader.required_text("kind");
  }
  if (spec.kind.empty()) {
    // Without a kind nobody knows the other keys: they are judged when it is right.
    parsed.violations = reader.violations();
    return parsed;
  }
  spec.options = default_options(spec.kind);
  std::visit([&reading](auto& options) { describe(reading, options); }, spec.options);
  check_ranks(reader, spec);
  if (std::has_single_bit(static_cast<std::uint64_t>(spec.micro_batches))) {
    std::visit([&](const auto& options) { check_options(reader, spec, options); }, spec.options);
  }
  reader.reject_unknown_keys();
  parsed.violations = reader.violations();
  return parsed;
}

JobSpec parse_job_spec(const json& document, const std::string& base, const std::string& where) {
  ParsedJobSpec parsed = check_job_spec(document, base, "");
  if (!parsed.violations.empty()) throw ConfigError(where, std::move(parsed.violations));
  return std::move(parsed.spec);
}

json to_json(const JobSpec& spec) {
  json object = written(spec);
  object["name"] = spec.name;
  object["kind"] = spec.kind;
  object.update(std::visit([](const auto& options) { return written(options); }, spec.options));
  return object;
}

json to_json(const NetworkSpec& network) { return written(network); }

json to_json(const SamplerSpec& sampler) { return written(sampler); }

NetworkSpec network_spec_from_json(const json& document, const std::string& where) {
  NetworkSpec network;
  const std::string no_base;
  ConfigReader reader(document, "");
  Reading reading(reader, no_base);
  describe(reading, network);
  if (reader.violations().empty()) check_network(reader, network);
  reader.finish(where);
  return network;
}

json bit_relevant_config(const JobSpec& spec) {
  json object = to_json(spec);
  for (const char* key :
       {"name", "ranks", "output", "report_every", "checkpoint", "evaluation", "after"}) {
    object.erase(key);
  }
  return object;
}

std::vector<std::string> differing_keys(const json& expected, const json& found) {
  std::vector<std::string> differences;
  collect_differences(expected, found, "", differences);
  return differences;
}

JobSpec substitute_references(JobSpec spec,
                              const std::function<std::string(const std::string&)>& resolve) {
  visit_references(spec, [&resolve](std::string& path) { path = resolve(path.substr(1)); });
  return spec;
}

std::vector<std::string> references(const JobSpec& spec) {
  std::vector<std::string> names;
  JobSpec copy = spec;
  visit_references(copy, [&names](const std::string& path) {
    const std::string name = path.substr(1);
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  });
  return names;
}

}  // namespace onestep
