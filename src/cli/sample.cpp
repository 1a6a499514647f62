#include "cli/sample.h"

#include <nlohmann/json.hpp>

#include <filesystem>
#include <iostream>

#include "cli/local_program.h"
#include "common/durable_file.h"
#include "common/error.h"
#include "common/job_spec.h"

namespace onestep {
namespace {

std::string absolute(const std::string& path) {
  return std::filesystem::absolute(path).lexically_normal().string();
}

std::string last_line(const std::string& text) {
  const std::size_t end = text.find_last_not_of('\n');
  if (end == std::string::npos) return "";
  const std::size_t start = text.rfind('\n', end);
  return text.substr(start == std::string::npos ? 0 : start + 1, end + 1 - (start == std::string::npos ? 0 : start + 1));
}

}  // namespace

std::string sample_spec_text(const SampleOptions& options, const std::string& run_folder) {
  nlohmann::json spec = {{"name", "sample"},          {"kind", "sample"},
                               {"seed", options.seed},      {"model", absolute(options.model)},
                               {"count", options.count},    {"label", options.label},
                               {"out", absolute(options.out)}, {"output", run_folder}};
  if (!options.prompts.empty()) spec["prompts"] = options.prompts;
  if (!options.like.empty()) spec["like"] = absolute(options.like);
  parse_job_spec(spec, run_folder, "onestep sample");
  return spec.dump(2) + "\n";
}

int draw_samples(const SampleOptions& options) {
  if (!std::filesystem::is_directory(options.model) && !options.model.ends_with(".safetensors")) {
    throw Error(ErrorCode::kNotFound, "--model " + options.model + ": expected an export or run folder, found none");
  }
  const std::filesystem::path out = absolute(options.out);
  if (!std::filesystem::is_directory(out.parent_path())) {
    throw Error(ErrorCode::kNotFound, "--out " + options.out + ": the folder " + out.parent_path().string() +
                                          " does not exist");
  }
  const std::string worker = sibling_program("onestep-worker");
  const ScratchFolder scratch;
  const std::string spec_file = scratch.path() + "/sample.json";
  write_file_durably(spec_file, sample_spec_text(options, scratch.path() + "/run"));
  const ProgramResult run = run_program({worker, spec_file});
  if (run.exit_status != 0) return run.exit_status;
  const nlohmann::json summary = nlohmann::json::parse(last_line(run.output), nullptr, false);
  if (!summary.is_object() || !summary.contains("digest")) {
    throw Error(ErrorCode::kInternal, worker + ": expected a job object on its last line, found '" +
                                          last_line(run.output) + "'");
  }
  if (options.json) {
    std::cout << nlohmann::json{{"out", out.string()}, {"count", options.count}, {"digest", summary["digest"]}}.dump()
              << "\n";
  } else {
    std::cout << "digest " << summary["digest"].get<std::string>() << "\n" << out.string() << "\n";
  }
  return 0;
}

}  // namespace onestep
