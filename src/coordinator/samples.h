// The pictures of a job's checkpoints: the same noise through each, drawn by their evaluations.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "coordinator/coordinator.h"

namespace onestep {

struct SampleRecord {
  std::int64_t iteration = 0;
  std::int64_t images = 0;
  std::string evaluation;         // id of the job that drew it
  std::optional<double> frechet;  // of that evaluation
  std::string file;               // absolute
};

// By iteration, one each, those whose file is there: of a job's automatic evaluations, or an evaluate
// job's own. Takes an id or a name. Errors: kNotFound for an unknown job.
std::vector<SampleRecord> samples_of(Coordinator& coordinator, const std::string& id);

}  // namespace onestep
