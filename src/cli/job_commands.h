// The short commands: one or two requests, one answer on the screen.
#pragma once

#include <optional>
#include <string>

#include "cli/client.h"

namespace onestep {

// All print to standard output, as text or, with `json`, as one JSON document; all throw what Client throws.
void list_jobs(const Client& client, const std::string& state, const std::string& pipeline, bool json);
void show_job(const Client& client, const std::string& job, bool json);
void cancel_job(const Client& client, const std::string& job, bool json);
void resume_job(const Client& client, const std::string& job, bool json);
void checkpoint_job(const Client& client, const std::string& job, bool json);

struct LogsOptions {
  std::string job;
  std::string rank = "0";      // "0", "1", ..., or "mpirun"
  std::optional<int> attempt;  // default: the newest
  bool follow = false;         // until the job ends
  bool json = false;           // one object a piece of text
};
void print_logs(const Client& client, const LogsOptions& options);

// Writes OUT/JOB/events.out.tfevents.TIME.JOB, replacing an older one. Errors: kIo.
void save_tensorboard(const Client& client, const std::string& job, const std::string& out, bool json);

// "/api/v1/jobs/ID" with `rest` behind it.
std::string job_target(const std::string& job, const std::string& rest = "");
// True for states that only a person changes.
bool has_ended(const std::string& state);

}  // namespace onestep
