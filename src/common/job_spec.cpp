#include "common/job_spec.h"

#include <algorithm>
#include <set>
#include <type_traits>
#include <utility>

#include "common/job_spec_checks.h"
#include "common/job_spec_fields.h"

namespace onestep {
namespace {

using nlohmann::json;

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

OptimizerSpec autoencoder_optimizer() {
  OptimizerSpec optimizer = teacher_optimizer();
  optimizer.learning_rate = 1e-3;
  optimizer.beta2 = 0.999;
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
  if (kind == "train_autoencoder") {
    TrainAutoencoderSpec spec;
    spec.optimizer = autoencoder_optimizer();
    return spec;
  }
  if (kind == "encode") return EncodeSpec{};
  if (kind == "encode_prompts") return EncodePromptsSpec{};
  if (kind == "train_text_teacher") {
    TrainTextTeacherSpec spec;
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

// ---- The three uses of the field lists. ----

// Reads each field and records what is wrong with it.
class Reading {
 public:
  static constexpr bool kReads = true;
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
  void numbers(const char* key, std::vector<double>& value, double min, double max) {
    value = reader_.numbers(key, value, min, max);
  }
  void boolean(const char* key, bool& value) { value = reader_.boolean(key, value); }
  void text(const char* key, std::string& value) {
    value = reader_.text(key, value);
    if (value.empty()) reader_.violation(key, "expected a name, found an empty string");
  }
  void choice(const char* key, std::string& value, const std::vector<std::string>& allowed) {
    value = reader_.choice(key, value, allowed);
  }
  void texts(const char* key, std::vector<std::string>& values) { values = reader_.texts(key, values); }
  void choices(const char* key, std::vector<std::string>& values, const std::vector<std::string>& allowed) {
    values = reader_.texts(key, values);
    std::string list;
    for (const std::string& name : allowed) list += (list.empty() ? "" : ", ") + name;
    for (const std::string& value : values) {
      if (std::find(allowed.begin(), allowed.end(), value) == allowed.end()) {
        reader_.violation(key, "expected some of " + list + ", found \"" + value.substr(0, 80) + "\"");
      }
    }
    if (values.empty()) reader_.violation(key, "expected some of " + list + ", found none");
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
  template <class Struct>
  void objects(const char* key, std::vector<Struct>& values) {
    for (ConfigReader& nested : reader_.objects(key)) {
      Reading reading(nested, base_);
      describe(reading, values.emplace_back());
      reader_.absorb(nested);
    }
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
  static constexpr bool kReads = false;
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
  void numbers(const char* key, std::vector<double>& value, double, double) { object_[key] = value; }
  void boolean(const char* key, bool& value) { object_[key] = value; }
  void text(const char* key, std::string& value) { object_[key] = value; }
  void choice(const char* key, std::string& value, const std::vector<std::string>&) {
    object_[key] = value;
  }
  void texts(const char* key, std::vector<std::string>& values) { object_[key] = values; }
  void choices(const char* key, std::vector<std::string>& values, const std::vector<std::string>&) {
    object_[key] = values;
  }
  template <class Struct, class... More>
  void object(const char* key, Struct& value, More... more) {
    json nested = json::object();
    Writing writing(nested);
    describe(writing, value, more...);
    object_[key] = std::move(nested);
  }
  template <class Struct>
  void objects(const char* key, std::vector<Struct>& values) {
    json list = json::array();
    for (Struct& value : values) {
      Writing writing(list.emplace_back(json::object()));
      describe(writing, value);
    }
    object_[key] = std::move(list);
  }

 private:
  json& object_;
};

// The kinds of job that write what a field of this name reads.
std::vector<std::string> kinds_read_by(const std::string& key) {
  if (key == "teacher") return {"train_teacher", "train_text_teacher", "export"};
  if (key == "pairs") return {"generate_pairs"};
  if (key == "detector") return {"train_detector"};
  if (key == "model") return {"train_teacher", "train_text_teacher", "distill", "export"};
  if (key == "compare" || key == "evaluation") return {"evaluate"};
  if (key == "prompts") return {"encode_prompts"};
  if (key == "latents") return {"encode"};
  if (key == "autoencoder" || key == "decoder") return {"train_autoencoder"};
  return {};
}

// Calls `visit(key, pointer, path)` on each path and nothing else.
template <class Visit>
class VisitingPaths {
 public:
  static constexpr bool kReads = false;
  explicit VisitingPaths(Visit visit) : visit_(std::move(visit)) {}

  void path(const char* key, std::string& value, Presence = Presence::kOptional) {
    visit_(key, pointer_ + "/" + key, value);
  }
  void paths(const char* key, std::vector<std::string>& values) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      visit_(key, pointer_ + "/" + key + "/" + std::to_string(i), values[i]);
    }
  }
  template <class... Ignored>
  void integer(Ignored&&...) {}
  template <class... Ignored>
  void integers(Ignored&&...) {}
  template <class... Ignored>
  void number(Ignored&&...) {}
  template <class... Ignored>
  void numbers(Ignored&&...) {}
  void boolean(const char*, bool&) {}
  void text(const char*, std::string&) {}
  void choice(const char*, std::string&, const std::vector<std::string>&) {}
  void texts(const char*, std::vector<std::string>&) {}
  void choices(const char*, std::vector<std::string>&, const std::vector<std::string>&) {}
  template <class Struct, class... More>
  void object(const char* key, Struct& value, More... more) {
    const std::string outer = pointer_;
    pointer_ += std::string("/") + key;
    describe(*this, value, more...);
    pointer_ = outer;
  }
  template <class Struct>
  void objects(const char* key, std::vector<Struct>& values) {
    const std::string outer = pointer_;
    for (std::size_t i = 0; i < values.size(); ++i) {
      pointer_ = outer + "/" + key + "/" + std::to_string(i);
      describe(*this, values[i]);
    }
    pointer_ = outer;
  }

 private:
  Visit visit_;
  std::string pointer_;
};

template <class Visit>
void visit_references(JobSpec& spec, Visit visit) {
  VisitingPaths visitor([&visit](const char* key, const std::string& pointer, std::string& path) {
    if (!path.empty() && path.front() == '@') visit(key, pointer, path);
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
      "train_detector",     "train_teacher",  "train_autoencoder", "encode",   "encode_prompts",
      "train_text_teacher", "generate_pairs", "distill",           "evaluate", "export",
      "sample"};
  return kinds;
}

bool is_training_kind(const std::string& kind) {
  return kind == "train_detector" || kind == "train_teacher" || kind == "train_autoencoder" || kind == "train_text_teacher" ||
         kind == "distill";
}

bool is_job_name(const std::string& name) {
  const auto is_letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
  const auto is_allowed = [&](char c) {
    return is_letter(c) || (c >= '0' && c <= '9') || c == '-' || c == '_';
  };
  constexpr std::size_t kMaxLength = 64;
  return !name.empty() && name.size() <= kMaxLength && is_letter(name.front()) &&
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
  if (reader.has("kind")) {
    spec.kind = reader.choice("kind", "", job_kinds());
    if (spec.device != "cpu" && spec.kind != "distill") {
      reader.violation("device", "expected cpu: " + spec.kind + " computes on the CPU only; found " + spec.device);
    }
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
  check_options(reader, spec);
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
       {"name", "ranks", "output", "report_every", "activation_checkpointing", "checkpoint", "health", "evaluation",
        "after"}) {
    object.erase(key);
  }
  return object;
}

std::vector<std::string> differing_keys(const json& expected, const json& found) {
  std::vector<std::string> differences;
  collect_differences(expected, found, "", differences);
  return differences;
}

std::vector<PathUse> path_uses(const JobSpec& spec) {
  std::vector<PathUse> uses;
  JobSpec copy = spec;
  VisitingPaths visitor([&uses](const char*, const std::string& pointer, std::string& path) {
    if (!path.empty() && path.front() != '@') uses.push_back({pointer, path});
  });
  describe(visitor, copy);
  std::visit([&visitor](auto& options) { describe(visitor, options); }, copy.options);
  return uses;
}

JobSpec substitute_references(JobSpec spec,
                              const std::function<std::string(const std::string&)>& resolve) {
  visit_references(spec, [&resolve](const char*, const std::string&, std::string& path) {
    path = resolve(path.substr(1));
  });
  return spec;
}

std::vector<ReferenceUse> reference_uses(const JobSpec& spec) {
  std::vector<ReferenceUse> uses;
  JobSpec copy = spec;
  visit_references(copy, [&uses](const char* key, const std::string& pointer, const std::string& path) {
    uses.push_back({pointer, path.substr(1), kinds_read_by(key)});
  });
  return uses;
}

std::vector<std::string> references(const JobSpec& spec) {
  std::vector<std::string> names;
  for (const ReferenceUse& use : reference_uses(spec)) {
    if (std::find(names.begin(), names.end(), use.name) == names.end()) names.push_back(use.name);
  }
  return names;
}

}  // namespace onestep
