// Submitting pipelines and waiting for what comes of them.
#pragma once

#include <string>
#include <vector>

#include "cli/client.h"

namespace onestep {

struct SubmitOptions {
  std::string file;
  std::vector<std::string> overrides;  // "distill.ranks=2"
  bool follow = false;
  bool json = false;
};
// Checks the file first, with every violation at once, then sends it. Returns the exit status: 0, or 7 when a followed
// job did not succeed. Errors: ConfigError, kNotFound, kUsage, and those of Client.
int submit_pipeline(const Client& client, const SubmitOptions& options);

// Follows a pipeline that was submitted earlier; with `resume`, resumes what failed or was stopped first.
int follow_submitted(const Client& client, const std::string& pipeline, bool resume, bool json);

// As ExportSpec has them.
struct ExportChoice {
  std::string selection = "auto";
  std::string dtype = "fp32";
};

// Submits an export job for the network that `job` made, waits for it, says where the folder is.
int export_model(const Client& client, const std::string& job, const std::string& out, const ExportChoice& choice, bool json);

}  // namespace onestep
