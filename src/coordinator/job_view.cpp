#include "coordinator/job_view.h"

namespace onestep {
namespace {

using Json = nlohmann::ordered_json;

Json time_or_null(double time) { return time > 0 ? Json(time) : Json(nullptr); }

Json result_of(const nlohmann::json& outcome) {
  const auto result = outcome.is_object() ? outcome.find("result") : outcome.end();
  return outcome.is_object() && result != outcome.end() ? Json(*result) : Json(nullptr);
}

}  // namespace

// Field by field: a list of a hundred jobs is asked for hundreds of times a second, and an initializer list copies each value twice.
Json job_summary(const JobRecord& job) {
  Json summary = Json::object();
  summary.emplace("id", job.id);
  summary.emplace("name", job.name);
  summary.emplace("kind", job.kind);
  summary.emplace("state", to_string(job.state));
  summary.emplace("reason", job.reason);
  summary.emplace("attempts", job.attempts);
  summary.emplace("digest", job.digest);
  summary.emplace("pipeline", job.pipeline);
  summary.emplace("parent", job.parent);
  summary.emplace("progress", job.progress);
  summary.emplace("result", result_of(job.outcome));
  summary.emplace("ranks", job.ranks);
  summary.emplace("created", time_or_null(job.created));
  summary.emplace("started", time_or_null(job.started));
  summary.emplace("ended", time_or_null(job.ended));
  return summary;
}

Json job_details(const JobRecord& job, const std::vector<AttemptRecord>& attempts,
                 const std::string& run_folder) {
  Json details = job_summary(job);
  details["attempts"] = Json::array();
  for (const AttemptRecord& attempt : attempts) {
    details["attempts"].push_back({{"number", attempt.number},
                                   {"state", attempt.state},
                                   {"started", time_or_null(attempt.started)},
                                   {"ended", time_or_null(attempt.ended)},
                                   {"reason", attempt.reason}});
  }
  details["failures"] = job.failures;
  details["after"] = job.after;
  details["run_folder"] = run_folder;
  details["outcome"] = job.outcome;
  details["spec"] = job.spec;
  return details;
}

Json checkpoint_view(const CheckpointRecord& checkpoint) {
  return {{"iteration", checkpoint.iteration},
          {"images", checkpoint.images},
          {"attempt", checkpoint.attempt},
          {"folder", checkpoint.folder},
          {"digest", checkpoint.digest},
          {"bytes", checkpoint.bytes},
          {"committed", time_or_null(checkpoint.committed)},
          {"frechet", checkpoint.frechet ? Json(*checkpoint.frechet) : Json(nullptr)},
          {"best", checkpoint.best}};
}

Json lease_view(const LeaseRecord& lease) {
  return {{"index", lease.shard},  {"first", lease.first}, {"count", lease.count},
          {"state", lease.state},  {"rank", lease.rank},   {"attempt", lease.attempt},
          {"sha256", lease.sha256}};
}

Json metric_view(const MetricPoint& point) {
  return {{"stage", point.stage},
          {"iteration", point.iteration},
          {"images", point.images},
          {"attempt", point.attempt},
          {"value", point.value}};
}

Json metric_event(const MetricPoint& point, const nlohmann::json& values) {
  return {{"stage", point.stage},     {"iteration", point.iteration}, {"images", point.images},
          {"attempt", point.attempt}, {"rank", point.rank},           {"values", values}};
}

Json worker_view(const WorkerRecord& worker) {
  return {{"job", worker.job},
          {"attempt", worker.attempt},
          {"rank", worker.rank},
          {"host", worker.host},
          {"pid", worker.pid},
          {"connected", time_or_null(worker.connected)},
          {"last_heard", time_or_null(worker.last_heard)},
          {"seconds_silent", worker.seconds_silent},
          {"iteration", worker.iteration ? Json(*worker.iteration) : Json(nullptr)},
          {"iterations_behind", worker.iterations_behind ? Json(*worker.iterations_behind) : Json(nullptr)},
          {"seconds_a_step", worker.seconds_a_step ? Json(*worker.seconds_a_step) : Json(nullptr)},
          {"trouble", worker.trouble}};
}

}  // namespace onestep
