#include "common/run_folder.h"

#include "common/config.h"
#include "common/durable_file.h"
#include "common/error.h"

namespace onestep {

std::string job_file(const std::string& run) { return run + "/job.json"; }

std::string log_file(const std::string& run, int attempt, int rank) {
  return run + "/logs/a" + std::to_string(attempt) + "-rank-" + std::to_string(rank) + ".log";
}

std::string mpirun_log_file(const std::string& run, int attempt) {
  return run + "/logs/a" + std::to_string(attempt) + "-mpirun.log";
}

std::string checkpoints_folder(const std::string& run) { return run + "/checkpoints"; }

std::string outbox_folder(const std::string& run) { return run + "/outbox"; }

std::string worker_token_file(const std::string& run, int attempt) {
  return run + "/telemetry-a" + std::to_string(attempt) + ".token";
}

std::string attempt_outcome_file(const std::string& run, int attempt) {
  return run + "/outcome-a" + std::to_string(attempt) + ".json";
}

std::string outcome_file(const std::string& run) { return run + "/outcome.json"; }

nlohmann::json summary_json(const JobOutcome& outcome) {
  return {{"name", outcome.name},
          {"kind", outcome.kind},
          {"state", outcome.state},
          {"attempts", outcome.attempts},
          {"digest", outcome.digest}};
}

nlohmann::json to_json(const JobOutcome& outcome) {
  nlohmann::json json = summary_json(outcome);
  if (!outcome.error.empty() || !outcome.error_code.empty()) {
    json["error"] = outcome.error;
    json["error_code"] = outcome.error_code;
  }
  if (!outcome.result.empty()) json["result"] = outcome.result;
  return json;
}

JobOutcome job_outcome_from_json(const nlohmann::json& json, const std::string& where) {
  ConfigReader reader(json, "");
  JobOutcome outcome;
  outcome.name = reader.required_text("name");
  outcome.kind = reader.required_text("kind");
  outcome.state = reader.required_text("state");
  if (!outcome.state.empty()) {
    reader.choice("state", "", {"succeeded", "failed", "interrupted", "cancelled"});
  }
  outcome.attempts = static_cast<int>(reader.required_integer("attempts", 1, 1'000'000));
  outcome.digest = reader.text("digest", "");
  outcome.error_code = reader.text("error_code", "");
  outcome.error = reader.text("error", "");
  ConfigReader result = reader.object("result");
  for (const auto& violation : result.violations()) reader.violation("result", violation.message);
  if (reader.violations().empty()) outcome.result = json.value("result", nlohmann::json::object());
  if (!reader.has("digest"))
    reader.violation("digest", "expected a string, found nothing (required)");
  try {
    reader.finish(where);
  } catch (const ConfigError& error) {
    throw Error(ErrorCode::kCorrupt, std::string("not an outcome: ") + error.what());
  }
  return outcome;
}

std::optional<JobOutcome> read_outcome(const std::string& path) {
  if (!file_exists(path)) return std::nullopt;
  const std::string text = read_file(path);
  nlohmann::json json;
  try {
    json = parse_json(text, path);
  } catch (const Error& error) {
    throw Error(ErrorCode::kCorrupt, error.what());
  }
  return job_outcome_from_json(json, path);
}

}  // namespace onestep
