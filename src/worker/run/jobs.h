// The job kinds, one file each: what every one of them takes and gives.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "worker/run/run_context.h"

namespace onestep {

struct JobResult {
  std::string digest;                                      // SHA-256 that names what was made
  nlohmann::json result = nlohmann::json::object();        // the kind's figures; rank 0's counts
};

// All are collective over context.communicator, write into context.run, and throw Error.
JobResult run_train_detector(const RunContext& context);
JobResult run_train_teacher(const RunContext& context);
JobResult run_train_autoencoder(const RunContext& context);
JobResult run_encode(const RunContext& context);
JobResult run_encode_prompts(const RunContext& context);
JobResult run_train_text_teacher(const RunContext& context);
JobResult run_generate_pairs(const RunContext& context);
JobResult run_distill(const RunContext& context);
JobResult run_evaluate(const RunContext& context);
JobResult run_export(const RunContext& context);
JobResult run_sample(const RunContext& context);

// By the spec's kind.
JobResult run_job(const RunContext& context);

}  // namespace onestep
