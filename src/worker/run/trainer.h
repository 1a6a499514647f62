// The loop every training job runs in: resume, iterate, vote, save beside the work, report, stop on request.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "common/job_spec.h"
#include "worker/run/network_updater.h"
#include "worker/run/run_context.h"
#include "worker/tensors/torch.h"

namespace onestep {

// One job kind as the loop sees it. Iterations are numbered 0, 1, ... over all phases.
class Training {
 public:
  virtual ~Training() = default;
  [[nodiscard]] virtual std::int64_t num_iterations() const = 0;
  // Images counted after `iterations` iterations.
  [[nodiscard]] virtual std::int64_t images_after(std::int64_t iterations) const = 0;
  [[nodiscard]] virtual std::string stage_of(std::int64_t iteration) const = 0;
  // Before the first iteration of this process (0, or where a checkpoint ended): phases are entered here or inside iterate().
  virtual void start_at(std::int64_t iteration) = 0;
  // One iteration; the figures are those of the whole iteration, the same on every rank. Collective.
  virtual std::map<std::string, double> iterate(std::int64_t iteration) = 0;
  // All networks' updaters: what a checkpoint holds.
  virtual std::vector<NetworkUpdater*> updaters() = 0;
  // Facts for readers of the checkpoint: network, generator_sigma, delivered_network.
  [[nodiscard]] virtual nlohmann::json description() const = 0;
  // Figures that cost something and are wanted only when a report goes out. Collective.
  virtual std::map<std::string, double> slow_figures() { return {}; }
};

struct TrainingOutcome {
  double seconds = 0;               // of iterations in this attempt
  double images_per_second = 0;
  std::int64_t first_iteration = 0; // where this attempt began
};

// Runs `training` to its end and leaves a final checkpoint. `bit_config` decides whether a checkpoint may be resumed.
// Errors: kMismatch naming the keys that differ; kInterrupted after a stop request was saved; kInternal for a loss that is not finite.
TrainingOutcome train(const RunContext& context, const nlohmann::json& bit_config, Training& training);

// The micro-batches of one rank: [first, first + count) of M.
struct MicroBatchRange {
  std::int64_t first = 0, count = 0;
};
MicroBatchRange micro_batch_range(std::int64_t micro_batches, int rank, int ranks);

}  // namespace onestep
