// What the coordinator makes of figures and ranks that are not as they should be: alarms, and what is done about them.
#include "coordinator/coordinator.h"

#include "common/log.h"
#include "coordinator/job_view.h"

#include <algorithm>

namespace onestep {
namespace {

using nlohmann::json;

constexpr double kLookInterval_s = 1.0;  // of the watchdog

bool is_rank_alarm(const std::string& code) {
  const std::vector<std::string>& codes = rank_alarm_codes();
  return std::find(codes.begin(), codes.end(), code) != codes.end();
}

// Of its progress messages: what belongs to one report.
HealthReport report_of(const json& body) {
  HealthReport report;
  report.stage = body.value("stage", "");
  report.iteration = body.value("iteration", std::int64_t{0});
  report.images = body.value("images", std::int64_t{0});
  report.images_total = body.value("images_total", std::int64_t{0});
  return report;
}

}  // namespace

std::vector<AlarmRecord> Coordinator::alarms(const std::string& id) { return store_.alarms(find_job(id).id); }

TrainingHealth Coordinator::health_of(const JobRecord& job) {
  const JobSpec spec = parse_job_spec(job.spec, options_.data, "job " + job.id);
  const json state = store_.health(job.id);
  return state.is_null() ? TrainingHealth(spec) : TrainingHealth(spec, state);
}

void Coordinator::judge_reports() {
  for (std::size_t i = 0; i < pending_reports_.size();) {
    const std::string id = pending_reports_[i].job;
    const JobRecord job = find_job(id);
    TrainingHealth health = health_of(job);
    for (; i < pending_reports_.size() && pending_reports_[i].job == id; ++i) {
      take_findings(job, pending_reports_[i].attempt, health.observe(pending_reports_[i].report));
    }
    store_.put_health(id, health.to_json());
  }
}

void Coordinator::judge_evaluation(const JobRecord& parent, const CheckpointRecord& checkpoint, const json& result) {
  TrainingHealth health = health_of(parent);
  HealthReport report = report_of(parent.progress.is_object() ? parent.progress : json::object());
  report.stage = "evaluation";
  report.iteration = checkpoint.iteration;
  report.images = checkpoint.images;
  for (const auto& [key, value] : result.items()) {
    if (value.is_number()) report.values[key] = value.get<double>();
  }
  take_findings(parent, checkpoint.attempt, health.observe_evaluation(report));
  store_.put_health(parent.id, health.to_json());
}

void Coordinator::take_findings(JobRecord job, int attempt, const std::vector<HealthFinding>& findings) {
  for (const HealthFinding& finding : findings) {
    if (finding.is_over) {
      for (const AlarmRecord& alarm : store_.alarms(job.id)) {
        if (alarm.ended == 0 && alarm.code == finding.code) end_alarm(alarm);
      }
      continue;
    }
    job = find_job(job.id);
    const JobSpec spec = parse_job_spec(job.spec, options_.data, "job " + job.id);
    AlarmRecord alarm;
    alarm.job = job.id;
    alarm.code = finding.code;
    alarm.attempt = attempt;
    alarm.stage = finding.stage;
    alarm.iteration = finding.iteration;
    alarm.images = finding.images;
    alarm.since_iteration = finding.since_iteration;
    alarm.since_images = finding.since_images;
    alarm.value = finding.value;
    alarm.bound = finding.bound;
    alarm.reason = finding.reason;
    alarm.hint = finding.hint;
    alarm.action = job.state == JobState::kRunning ? spec.health.on_alarm : "continue";
    raise(alarm);
    if (alarm.action == "stop") note_stop(job, /*cancel=*/true, "stopped by the alarm " + finding.code + ": " + finding.reason);
    if (alarm.action == "checkpoint") checkpoints_due_.insert(job.id);
  }
}

void Coordinator::raise(AlarmRecord alarm) {
  alarm.raised = options_.clock();
  alarm.number = store_.insert_alarm(alarm);
  log_warning(alarm.job + ": alarm " + alarm.code + ": " + alarm.reason, {.job = alarm.job, .attempt = alarm.attempt, .rank = alarm.rank});
  emit(alarm.job, "alarm", alarm_view(alarm));
  if (is_rank_alarm(alarm.code)) rank_alarms_[alarm.job].push_back(alarm);
}

void Coordinator::end_alarm(AlarmRecord alarm) {
  alarm.ended = options_.clock();
  store_.end_alarm(alarm.number, alarm.ended);
  log_info(alarm.job + ": alarm " + alarm.code + " is over", {.job = alarm.job, .attempt = alarm.attempt, .rank = alarm.rank});
  emit(alarm.job, "alarm", alarm_view(alarm));
}

// An attempt that has ended has no ranks; what its figures said remains.
void Coordinator::end_alarms(const JobRecord& job, bool of_ranks) {
  for (const AlarmRecord& alarm : store_.alarms(job.id)) {
    if (alarm.ended == 0 && is_rank_alarm(alarm.code) == of_ranks) end_alarm(alarm);
  }
}

void Coordinator::watch_ranks(const JobRecord& job, const AttemptRecord& attempt) {
  const double now = options_.clock();
  double& looked = looked_at_[job.id];
  if (now - looked < kLookInterval_s) return;
  looked = now;
  const JobSpec spec = parse_job_spec(job.spec, options_.data, "job " + job.id);
  const auto pending = pending_until_.find(job.id);
  const double launched = std::max({attempt.started, started_, pending != pending_until_.end() ? pending->second : 0.0});
  const std::vector<RankTrouble> found = watchdog_.look({.job = job.id,
                                                         .attempt = attempt.number,
                                                         .num_ranks = job.ranks,
                                                         .is_training = is_training_kind(job.kind),
                                                         .launched = launched,
                                                         .ranks = rank_board_.ranks(job.id, now)},
                                                        spec.health, now);
  // Of ranks that have not said hello to this coordinator yet nothing is known: what held still holds.
  if (found.empty() && rank_board_.ranks(job.id, now).empty()) return;
  const std::vector<AlarmRecord> holding = rank_alarms_[job.id];
  std::vector<AlarmRecord> kept;
  const auto is_found = [&](const AlarmRecord& alarm) {
    return std::any_of(found.begin(), found.end(), [&](const RankTrouble& one) { return one.code == alarm.code && one.rank == alarm.rank; });
  };
  const auto is_known = [&](const RankTrouble& one) {
    return std::any_of(holding.begin(), holding.end(),
                       [&](const AlarmRecord& alarm) { return alarm.code == one.code && alarm.rank == one.rank; });
  };
  if (std::all_of(holding.begin(), holding.end(), is_found) && std::all_of(found.begin(), found.end(), is_known)) return;
  const json progress = this->job(job.id).progress;
  const HealthReport place = report_of(progress.is_object() ? progress : json::object());
  Store::Transaction transaction = store_.begin();
  for (const AlarmRecord& alarm : holding) {
    if (is_found(alarm)) {
      kept.push_back(alarm);
    } else {
      end_alarm(alarm);
    }
  }
  rank_alarms_[job.id] = kept;
  for (const RankTrouble& one : found) {
    if (is_known(one)) continue;
    AlarmRecord alarm;
    alarm.job = job.id;
    alarm.code = one.code;
    alarm.rank = one.rank;
    alarm.attempt = attempt.number;
    alarm.stage = place.stage;
    alarm.iteration = alarm.since_iteration = place.iteration;
    alarm.images = alarm.since_images = place.images;
    alarm.value = one.value;
    alarm.bound = one.bound;
    alarm.reason = one.reason;
    alarm.hint = one.hint;
    alarm.action = "continue";
    raise(alarm);
  }
  transaction.commit();
}

}  // namespace onestep
