#include <map>

#include "common/error.h"
#include "worker/run/jobs.h"

namespace onestep {

JobResult run_job(const RunContext& context) {
  static const std::map<std::string, JobResult (*)(const RunContext&)> kinds = {
      {"train_detector", run_train_detector},       {"train_teacher", run_train_teacher},
      {"train_autoencoder", run_train_autoencoder}, {"encode", run_encode},
      {"encode_prompts", run_encode_prompts},       {"train_text_teacher", run_train_text_teacher},
      {"generate_pairs", run_generate_pairs},       {"distill", run_distill},
      {"evaluate", run_evaluate},                   {"export", run_export},
      {"sample", run_sample}};
  const auto kind = kinds.find(context.spec.kind);
  if (kind == kinds.end()) {
    throw Error(ErrorCode::kConfig, "kind: \"" + context.spec.kind + "\" has no implementation in this worker");
  }
  return kind->second(context);
}

}  // namespace onestep
