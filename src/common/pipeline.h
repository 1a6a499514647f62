// A pipeline file: named jobs, each after those it names.
#pragma once

#include <nlohmann/json.hpp>

#include <string>
#include <vector>

#include "common/job_spec.h"

namespace onestep {

struct PipelineJob {
  JobSpec spec;
  std::vector<std::string> after;  // names in the same pipeline: the spec's "after" and every "@name" it refers to
};

struct Pipeline {
  std::string name;
  std::vector<PipelineJob> jobs;   // in an order where everything comes after what it needs
};

// {"pipeline": name, "jobs": [job spec + optional "after": [names], ...]}. A document without "jobs" is one job spec and
// becomes a pipeline of one. Checks names, references and cycles. Errors: ConfigError with every violation of every job.
Pipeline parse_pipeline(const nlohmann::json& json, const std::string& base, const std::string& where);

// For --set: "distill.ranks=2" goes to the pipeline's job `distill`, key `ranks`; in a single job spec the first part may be
// the job's name or be left out. Errors: kUsage naming unknown jobs.
void apply_pipeline_override(nlohmann::json& document, const std::string& assignment);

}  // namespace onestep
