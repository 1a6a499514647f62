// onestep plan: what the training jobs of a file will take, before they are run.
#pragma once

#include <nlohmann/json.hpp>

#include <cstdint>
#include <string>
#include <vector>

namespace onestep {

struct PlanOptions {
  std::string file;                    // pipeline or job spec
  std::vector<std::string> overrides;  // JOB.KEY=VALUE
  int ranks = 0;                       // 0: as the specs say
  std::int64_t memory = 0;             // bytes of the machine; 0: what this one can still give
  double hours = 0;                    // more than 0: also the images/s that a run of so many hours needs
  bool json = false;
};

// Measures by running the worker beside this program, prints, and returns the exit status: 8 when a job can't fit into the machine
// with all its ranks. Errors: kNotFound, kConfig, kInternal.
int print_plan(const PlanOptions& options);

// "16G", "512M", "1000000": powers of 1,024. Errors: kUsage.
std::int64_t bytes_from_text(const std::string& text);
// The lines for a person. `plan` is the worker's answer, with "fits" and "images_per_second" added where they apply.
std::string plan_text(const nlohmann::json& plan);
// Adds to each job: "fits" (all its ranks on one machine of `memory` bytes) and "images_per_second" (with hours > 0).
nlohmann::json judged_plan(nlohmann::json plan, std::int64_t memory, double hours);

}  // namespace onestep
