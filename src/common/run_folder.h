// Names of the files in a job's run folder, and the outcome that ends it. docs/formats.md is the reference.
#pragma once

#include <nlohmann/json.hpp>

#include <optional>
#include <string>

namespace onestep {

// <run>/job.json              the resolved spec that the attempt runs
// <run>/logs/a<attempt>-rank-<rank>.log, <run>/logs/a<attempt>-mpirun.log
// <run>/checkpoints/          see checkpoint_manifest.h
// <run>/outbox/               telemetry that must not be lost, until acknowledged
// <run>/telemetry-a<attempt>.token   mode 0600, while the attempt lives: its ranks show it in their hello
// <run>/outcome-a<attempt>.json   JobOutcome of each attempt, written by rank 0 (or by the coordinator for a dead one)
// <run>/outcome.json          the JobOutcome of a succeeded run: the run is finished
// <run>/model.safetensors, config.json   networks' output;   <run>/manifest.json, pairs-*.h5   pair sets
std::string job_file(const std::string& run);
std::string log_file(const std::string& run, int attempt, int rank);
std::string mpirun_log_file(const std::string& run, int attempt);
std::string checkpoints_folder(const std::string& run);
std::string outbox_folder(const std::string& run);
std::string worker_token_file(const std::string& run, int attempt);
std::string attempt_outcome_file(const std::string& run, int attempt);
std::string outcome_file(const std::string& run);

struct JobOutcome {
  std::string name;
  std::string kind;
  std::string state;          // "succeeded", "failed", "interrupted" (saved on request), "cancelled"
  int attempts = 1;
  std::string digest;         // what the job made: model, pair set, export, evaluation (SHA-256); "" if not succeeded
  std::string error_code;     // to_string(ErrorCode) when failed
  std::string error;          // message
  nlohmann::json result;      // kind's figures: {"frechet": 1.9, ...}; {} if none
};
// {name, kind, state, attempts, digest} first; error and result when there are any.
nlohmann::json to_json(const JobOutcome& outcome);
JobOutcome job_outcome_from_json(const nlohmann::json& json, const std::string& where);  // Errors: kCorrupt
// The five public fields only: the object on the last line of worker and `submit --follow --json`.
nlohmann::json summary_json(const JobOutcome& outcome);
// nullopt when there is none. Errors: kCorrupt.
std::optional<JobOutcome> read_outcome(const std::string& path);

}  // namespace onestep
