// A data folder as it is after years of use: many finished jobs, long curves, and one job that "runs".
#pragma once

#include <cstdint>
#include <string>

namespace onestep {

struct FillOptions {
  std::string data;                    // a new folder
  std::int64_t jobs = 100'000;         // finished ones, five a pipeline
  std::int64_t points = 10'000'000;    // of their curves, 100,000 a job
  std::int64_t curve = 0;              // points of one more curve, of the first job
  int ranks = 256;                     // of the running job, which is a generate_pairs of kShards shards
  std::int64_t pid = 0;                // of the process that stands for its mpirun
};

// The running job, which the simulated ranks belong to.
constexpr const char* kRunningJob = "pairs-running";
constexpr std::int64_t kShards = 32'768;

void fill(const FillOptions& options);

}  // namespace onestep
