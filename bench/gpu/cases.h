// What is measured on a device: networks, batches, and the small stand-ins by which the harness is tested on a processor.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "worker/tensors/torch.h"

namespace onestep {

struct BenchOptions {
  std::string name;                      // of the case
  torch::Device device = torch::kCUDA;
  bool small = false;                    // the case's stand-in
  double seconds = 10;                   // of each timing
  std::string inputs;                    // where weights and inputs go for the twin; empty: nowhere
  bool benchmark_convolutions = true;
};

// The names of all cases, in the order in which they are run.
std::vector<std::string> case_names();

// Measures one case; the object has what bench/gpu/drive.py records. Errors: kUsage for an unknown name.
nlohmann::json run_case(const BenchOptions& options);

// One distillation iteration with both updates, captured and replayed.
nlohmann::json run_training(const BenchOptions& options);
// One-step samples, or Heun's pairs, of the networks of the training cases.
nlohmann::json run_sampling(const BenchOptions& options);
nlohmann::json run_inception(const BenchOptions& options);
nlohmann::json run_optimizer(const BenchOptions& options);
// Each grid kernel against the bytes that it has to move.
nlohmann::json run_kernels(const BenchOptions& options);

}  // namespace onestep
