#include "cli/evaluate.h"

#include <nlohmann/json.hpp>

#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <optional>

#include "cli/local_program.h"
#include "common/durable_file.h"
#include "common/error.h"
#include "common/job_spec.h"
#include "common/run_folder.h"

namespace onestep {
namespace {

constexpr const char* kDetectorVariable = "ONESTEP_INCEPTION";
constexpr std::int64_t kAll = std::int64_t{1} << 40;

std::string absolute_or_empty(const std::string& path) {
  return path.empty() ? path : std::filesystem::absolute(path).lexically_normal().string();
}

std::string detector_of(const EvaluateOptions& options) {
  if (!options.detector.empty()) return options.detector;
  const char* variable = std::getenv(kDetectorVariable);
  if (variable && *variable) return variable;
  throw Error(ErrorCode::kUsage, std::string("--detector: expected a .safetensors file of Inception-2015-12-05's weights, here or in ") +
                                     kDetectorVariable + ", found neither; docs/metrics.md says where to get them");
}

void check_inputs(const EvaluateOptions& options) {
  if (!std::filesystem::is_directory(options.images)) {
    throw Error(ErrorCode::kNotFound, "--images " + options.images + ": expected a folder of pictures, found none");
  }
  if (!options.reference.empty() && !std::filesystem::is_regular_file(options.reference)) {
    throw Error(ErrorCode::kNotFound, "--reference " + options.reference + ": expected an .npz or .h5 file, found none");
  }
  const std::string detector = detector_of(options);
  if (!std::filesystem::is_regular_file(detector)) {
    throw Error(ErrorCode::kNotFound, "--detector " + detector + ": expected a .safetensors file, found none");
  }
  const std::string folder = std::filesystem::path(absolute_or_empty(options.save)).parent_path().string();
  if (!options.save.empty() && !std::filesystem::is_directory(folder)) {
    throw Error(ErrorCode::kNotFound, "--save " + options.save + ": the folder " + folder + " does not exist");
  }
}

void print_result(const JobOutcome& outcome) {
  for (const char* key : {"fid", "inception_score", "inception_score_deviation", "kid", "kid_deviation", "precision", "recall",
                          "count", "resize", "detector_sha256", "reference_sha256", "dataset_sha256", "images_sha256"}) {
    if (!outcome.result.contains(key)) continue;
    const nlohmann::json& value = outcome.result[key];
    std::cout << key << " " << (value.is_string() ? value.get<std::string>() : value.dump()) << "\n";
  }
}

}  // namespace

std::string evaluate_spec_text(const EvaluateOptions& options, const std::string& run_folder) {
  nlohmann::json spec = {{"name", "evaluate"},
                         {"kind", "evaluate"},
                         {"source", "images"},
                         {"images", absolute_or_empty(options.images)},
                         {"detector", absolute_or_empty(detector_of(options))},
                         {"resize", options.resize},
                         {"lanczos", options.lanczos},
                         {"metrics", options.metrics},
                         {"count", options.count > 0 ? options.count : kAll},
                         {"output", run_folder}};
  if (options.reference.ends_with(".npz")) {
    spec["reference"] = absolute_or_empty(options.reference);
  } else if (!options.reference.empty()) {
    spec["dataset"] = {{"path", absolute_or_empty(options.reference)}};
  }
  parse_job_spec(spec, run_folder, "onestep evaluate");
  return spec.dump(2) + "\n";
}

int evaluate_images(const EvaluateOptions& options) {
  check_inputs(options);
  const std::string worker = sibling_program("onestep-worker");
  const ScratchFolder scratch;
  const std::string spec_file = scratch.path() + "/evaluate.json", run_folder = scratch.path() + "/run";
  write_file_durably(spec_file, evaluate_spec_text(options, run_folder));
  const ProgramResult run = run_program({worker, spec_file});
  if (run.exit_status != 0) return run.exit_status;
  const std::optional<JobOutcome> outcome = read_outcome(outcome_file(run_folder));
  if (!outcome) throw Error(ErrorCode::kInternal, worker + ": expected " + outcome_file(run_folder) + ", found none");
  if (!options.save.empty()) write_file_durably(absolute_or_empty(options.save), read_file(run_folder + "/statistics.npz"));
  if (options.json) {
    std::cout << outcome->result.dump() << "\n";
  } else {
    print_result(*outcome);
  }
  return 0;
}

}  // namespace onestep
