// What the coordinator makes of committed checkpoints: records, automatic evaluations, the best
// one, pins.
#pragma once

#include <nlohmann/json.hpp>

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "common/job_spec.h"
#include "coordinator/store.h"

namespace onestep {

// From a kCheckpointCommitted body; `folder` is checked to be the one that iteration and attempt
// name, inside the run folder. Errors: kCorrupt naming the field.
CheckpointRecord committed_checkpoint(const std::string& job, const std::string& run_folder,
                                      const nlohmann::json& body, double now);

// Every folder with a readable manifest in the run folder, oldest first; unreadable ones are logged
// and left out.
std::vector<CheckpointRecord> checkpoints_on_disk(const std::string& job,
                                                  const std::string& run_folder, double now);

// Grows with every newer checkpoint and every further shard in the run folder: what "progress"
// means for restarts.
std::int64_t progress_on_disk(const std::string& run_folder);

// The job that evaluates this checkpoint of `distill` (whose references are replaced already):
// one-step samples of its averaged weights, one rank. Named "<distill>-eval-<iteration>".
JobSpec evaluation_spec(const JobSpec& distill, const CheckpointRecord& checkpoint);

// Figures of an evaluation's result as metrics of its parent: "eval.<name>" at the checkpoint's
// iteration and images.
std::vector<MetricPoint> evaluation_metrics(const nlohmann::json& result,
                                            const CheckpointRecord& checkpoint);

// A figure of an evaluation's result; nullopt: none of that name, or no finite number.
std::optional<double> finite_figure(const nlohmann::json& result, const std::string& name);

// Marks the lowest score among those evaluated, or the highest (the earlier of two equal ones).
// Returns the records that changed.
std::vector<CheckpointRecord> mark_best(const std::vector<CheckpointRecord>& checkpoints,
                                        bool highest);

// Pins exactly `wanted` among the known checkpoint folders; those that are gone are passed over.
void set_pins(const std::vector<CheckpointRecord>& checkpoints,
              const std::set<std::string>& wanted);

}  // namespace onestep
