// What REST shows of the coordinator's records.
#pragma once

#include <nlohmann/json.hpp>

#include <vector>

#include "coordinator/access_tokens.h"
#include "coordinator/rank_board.h"
#include "coordinator/store.h"

namespace onestep {

// {id, name, kind, state, reason, attempts, digest, pipeline, parent, progress, num_alarms, result,
// ranks, created, started, ended}.
nlohmann::ordered_json job_summary(const JobRecord& job);
// The summary with `attempts` as a list, and {alarms, failures, after, run_folder, outcome, spec}.
nlohmann::ordered_json job_details(const JobRecord& job, const std::vector<AttemptRecord>& attempts,
                                   const std::vector<AlarmRecord>& alarms,
                                   const std::string& run_folder);
nlohmann::ordered_json alarm_view(const AlarmRecord& alarm);
nlohmann::ordered_json checkpoint_view(const CheckpointRecord& checkpoint);
nlohmann::ordered_json lease_view(const LeaseRecord& lease);
// What identifies a point's key is left out: it stands once above all its points.
nlohmann::ordered_json metric_view(const MetricPoint& point);
// Points of one report, {stage, iteration, images, attempt, rank, values {key: number}}: the body of
// an event of type metric.
nlohmann::ordered_json metric_event(const MetricPoint& point, const nlohmann::json& values);
nlohmann::ordered_json worker_view(const WorkerRecord& worker);
nlohmann::ordered_json token_view(const TokenRecord& token, double now);

}  // namespace onestep
