#include "coordinator/job_view.h"

#include <cmath>

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
  summary.emplace("num_alarms", job.num_alarms);
  summary.emplace("result", result_of(job.outcome));
  summary.emplace("ranks", job.ranks);
  summary.emplace("created", time_or_null(job.created));
  summary.emplace("started", time_or_null(job.started));
  summary.emplace("ended", time_or_null(job.ended));
  return summary;
}

Json job_details(const JobRecord& job, const std::vector<AttemptRecord>& attempts,
                 const std::vector<AlarmRecord>& alarms, const std::string& run_folder) {
  Json details = job_summary(job);
  details["attempts"] = Json::array();
  for (const AttemptRecord& attempt : attempts) {
    details["attempts"].push_back({{"number", attempt.number},
                                   {"state", attempt.state},
                                   {"started", time_or_null(attempt.started)},
                                   {"ended", time_or_null(attempt.ended)},
                                   {"reason", attempt.reason}});
  }
  details["alarms"] = Json::array();
  for (const AlarmRecord& alarm : alarms) details["alarms"].push_back(alarm_view(alarm));
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
          {"score", checkpoint.score ? Json(*checkpoint.score) : Json(nullptr)},
          {"best", checkpoint.best}};
}

Json alarm_view(const AlarmRecord& alarm) {
  return {{"number", alarm.number},
          {"code", alarm.code},
          {"rank", alarm.rank >= 0 ? Json(alarm.rank) : Json(nullptr)},
          {"attempt", alarm.attempt},
          {"stage", alarm.stage},
          {"iteration", alarm.iteration},
          {"images", alarm.images},
          {"since_iteration", alarm.since_iteration},
          {"since_images", alarm.since_images},
          {"value", std::isfinite(alarm.value) ? Json(alarm.value) : Json(nullptr)},
          {"bound", alarm.bound},
          {"reason", alarm.reason},
          {"hint", alarm.hint},
          {"action", alarm.action},
          {"raised", time_or_null(alarm.raised)},
          {"ended", time_or_null(alarm.ended)}};
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

Json token_view(const TokenRecord& token, double now) {
  return {{"id", token.id},
          {"role", token.role},
          {"label", token.label},
          {"state", token_state(token, now)},
          {"created", token.created},
          {"expires", time_or_null(token.expires)}};
}

}  // namespace onestep
