// The attempts of a coordinator's jobs: launched, adopted, watched, stopped, ended, restarted.
#include "coordinator/coordinator.h"

#include <filesystem>
#include <system_error>

#include "common/durable_file.h"
#include "common/hash.h"
#include "common/log.h"
#include "common/secret.h"
#include "coordinator/checkpoint_registry.h"

#include <algorithm>

namespace onestep {
namespace {

using nlohmann::json;

constexpr int kMaxFailures = 3;  // attempts in a row without progress
constexpr double kFirstRestartDelay_s = 0.5;
constexpr double kRestartDelay_s = 2.0;
constexpr double kHostDelay_s = 5.0;  // where a lost host may be given work again until it is missed
constexpr double kSaveTime_s = 20.0;      // from the request to stop until mpirun is told to end
constexpr double kTerminateTime_s = 3.0;  // from then until everything left is killed
constexpr double kLingerTime_s = 30.0;    // from an attempt's final state until the same

JobOutcome failure(const JobRecord& job, ErrorCode code, const std::string& message) {
  JobOutcome outcome;
  outcome.name = job.name;
  outcome.kind = job.kind;
  outcome.state = "failed";
  outcome.attempts = job.attempts;
  outcome.error_code = to_string(code);
  outcome.error = message;
  return outcome;
}

}  // namespace

LaunchRequest Coordinator::launch_request(const JobRecord& job, int attempt) {
  return {.job = job.id,
          .attempt = attempt,
          .ranks = job.ranks,
          .run_folder = run_folder(job.id),
          .coordinator_file = options_.data + "/coordinator.address",
          .background = !job.parent.empty()};
}

// What was fine when the job was submitted may have become a link out of the roots since, and the roots may be others.
void Coordinator::require_roots(const JobRecord& job) {
  std::vector<Violation> violations;
  for (const PathUse& use : path_uses(resolved_spec(job))) {
    if (const std::string why = options_.roots.refuse(use.path); !why.empty()) violations.push_back({use.pointer, why});
  }
  if (!violations.empty()) throw ConfigError("job " + job.id, std::move(violations));
}

void Coordinator::write_run_folder(const JobRecord& job) {
  const std::string run = run_folder(job.id);
  create_folders_durably(run + "/logs");
  write_file_durably(job_file(run), to_json(resolved_spec(job)).dump(2) + "\n");
}

void Coordinator::write_worker_token(const JobRecord& job, int attempt) {
  const std::string token = random_hex(32);
  {
    Store::Transaction transaction = store_.begin();
    store_.put_attempt_token(job.id, attempt, sha256(token));
    transaction.commit();
  }
  write_secret_file(worker_token_file(run_folder(job.id), attempt), token + "\n");
}

void Coordinator::start(JobRecord job, const Decision& decision) {
  const std::string& reason = decision.reason;
  job.ranks = decision.ranks;
  AttemptRecord attempt;
  {
    // Written down before it is done: a coordinator that dies in between looks for the attempt's
    // processes.
    Store::Transaction transaction = store_.begin();
    job.attempts += 1;
    if (job.started == 0) job.started = options_.clock();
    attempt.job = job.id;
    attempt.number = job.attempts;
    attempt.state = "starting";
    attempt.reason = reason;
    attempt.started = options_.clock();
    attempt.progress_mark = progress_on_disk(run_folder(job.id));
    attempt.launcher = launcher_->name();
    store_.insert_attempt(attempt);
    apply(job, JobEvent::kLaunch, attempt_name(attempt.number) + " starts: " + reason);
    transaction.commit();
  }
  try {
    require_roots(job);
    write_run_folder(job);
    if (options_.worker_tokens) write_worker_token(job, attempt.number);
    const ProcessIdentity process = launcher_->launch(launch_request(job, attempt.number));
    Store::Transaction transaction = store_.begin();
    attempt.pid = process.pid;
    attempt.start_time = process.start_time;
    attempt.place = process.place;
    store_.update_attempt(attempt);
    transaction.commit();
  } catch (const Error& error) {
    // Launched but not written down: it must not run beside the next attempt.
    launcher_->kill_all(launch_request(job, attempt.number));
    Store::Transaction transaction = store_.begin();
    decide_end(job, attempt,
               failure(job, error.code(), std::string("could not be launched: ") + error.what()), /*machine_fault=*/false);
    transaction.commit();
  }
}

void Coordinator::reconcile() {
  for (JobRecord& job : store_.unfinished_jobs()) {
    if (!is_active(job.state)) continue;
    AttemptRecord attempt = store_.attempt(job.id, job.attempts).value();
    if (attempt.launcher != launcher_->name()) {
      throw Error(ErrorCode::kConflict, options_.data + ": " + job.id + " runs in an attempt that --launcher " + attempt.launcher +
                                            " started, found --launcher " + launcher_->name() +
                                            "; start with that one, or cancel the job there first");
    }
    if (!attempt.outcome.is_null()) final_since_[job.id] = options_.clock();
    if (attempt.pid != 0 || !attempt.place.empty()) continue;
    const std::optional<ProcessIdentity> found =
        launcher_->find(launch_request(job, attempt.number));
    Store::Transaction transaction = store_.begin();
    if (found) {
      attempt.pid = found->pid;
      attempt.start_time = found->start_time;
      attempt.place = found->place;
      store_.update_attempt(attempt);
    } else {
      // No fault of the job's: the number is used up, nothing is counted against it.
      attempt.state = "failed";
      attempt.reason = "the coordinator ended before it could launch it";
      attempt.ended = options_.clock();
      store_.update_attempt(attempt);
      if (job.state == JobState::kStopping) {
        job.ended = options_.clock();
        apply(job, job.cancel_requested ? JobEvent::kCancelled : JobEvent::kAttemptStopped,
              "stopped before it was launched");
      } else {
        job.ranks = wanted_ranks(job);
        apply(job, JobEvent::kAttemptRetried, attempt_name(attempt.number) + ": " + attempt.reason);
      }
    }
    transaction.commit();
  }
  // Pins of jobs that have ended are looked at when they are resumed.
  for (const JobRecord& job : store_.unfinished_jobs()) {
    if (job.kind == "distill") pins_due_.insert(job.id);
    if (!job.parent.empty()) pins_due_.insert(job.parent);
  }
  for (const AlarmRecord& alarm : store_.holding_alarms()) {
    const std::vector<std::string>& codes = rank_alarm_codes();
    if (std::find(codes.begin(), codes.end(), alarm.code) != codes.end()) rank_alarms_[alarm.job].push_back(alarm);
  }
  if (const std::optional<Error> trouble = watch_attempts()) {
    log_error(std::string(trouble->what()) + "; will be tried again");
  }
  update_dependencies();
}

std::optional<Error> Coordinator::watch_attempts() {
  std::optional<Error> trouble;
  for (const JobRecord& job : store_.jobs_in({JobState::kStarting, JobState::kRunning, JobState::kStopping})) {
    try {
      watch_attempt(job);
    } catch (const Error& error) {
      // What stands in the way of one job (its disk is full, say) must not keep the others from
      // going on.
      if (!trouble) trouble.emplace(error.code(), job.id + ": " + error.what());
    }
  }
  return trouble;
}

void Coordinator::watch_attempt(const JobRecord& job) {
  const AttemptRecord attempt = store_.attempt(job.id, job.attempts).value();
  const ProcessIdentity process{attempt.pid, attempt.start_time, attempt.place};
  const std::optional<ProcessEnd> end = launcher_->poll(process);
  if (!end) {
    enforce_stop(job, attempt);
    tell_whereabouts(job, process);
    // Nobody waits for ranks that wait themselves.
    if (launcher_->is_pending(process)) {
      pending_until_[job.id] = options_.clock();
      return;
    }
    watch_ranks(job, attempt);
    return;
  }
  // Ranks that outlived their mpirun would go on writing.
  const int left = launcher_->kill_all(launch_request(job, attempt.number));
  if (left > 0) {
    log_warning(job.id + " " + attempt_name(attempt.number) + ": killed " + std::to_string(left) +
                " processes that outlived what had launched them");
  }
  end_attempt(job, attempt, *end);
}

// While it starts: what a batch system's queue does with it.
void Coordinator::tell_whereabouts(const JobRecord& job, const ProcessIdentity& process) {
  if (job.state != JobState::kStarting) return;
  const std::string where = launcher_->whereabouts(process);
  if (where.empty()) return;
  const std::string reason = attempt_name(job.attempts) + " starts: " + where;
  if (reason == job.reason) return;
  JobRecord told = find_job(job.id);
  Store::Transaction transaction = store_.begin();
  update_reason(told, reason);
  transaction.commit();
}

void Coordinator::enforce_stop(const JobRecord& job, const AttemptRecord& attempt) {
  const double now = options_.clock();
  // By an alarm, or by a coordinator that died before it told them.
  if (sender_ && job.state == JobState::kStopping && told_to_stop_.insert(job.id).second) {
    send_to_all(job, {.type = MessageType::kStop, .body = {{"reason", job.reason}}});
  }
  const auto terminated = terminated_at_.find(job.id);
  if (terminated != terminated_at_.end()) {
    if (now - terminated->second >= kTerminateTime_s) {
      launcher_->kill_all(launch_request(job, attempt.number));
    }
    return;
  }
  const auto final = final_since_.find(job.id);
  const bool lingers = final != final_since_.end() && now - final->second >= kLingerTime_s;
  const ProcessIdentity process{attempt.pid, attempt.start_time, attempt.place};
  const bool pending = job.state == JobState::kStopping && launcher_->is_pending(process);
  const bool overdue = job.state == JobState::kStopping && now - job.stop_requested >= kSaveTime_s;
  if (!lingers && !overdue && !pending) return;
  if (!pending) {
    log_warning(job.id + ": " + attempt_name(attempt.number) +
                (overdue ? " did not save and end in time" : " lingers after its end") +
                "; telling it to end");
  }
  launcher_->terminate(process);
  terminated_at_[job.id] = now;
}

JobOutcome Coordinator::outcome_of(const JobRecord& job, const AttemptRecord& attempt,
                                   const ProcessEnd& end) {
  const std::string path = attempt_outcome_file(run_folder(job.id), attempt.number);
  std::string why_not;
  try {
    if (std::optional<JobOutcome> outcome = read_outcome(path)) return *outcome;
  } catch (const Error& error) {
    why_not = error.what();
    log_warning(why_not);
  }
  if (!attempt.outcome.is_null()) {
    return job_outcome_from_json(attempt.outcome, "final state of " + job.id);
  }
  JobOutcome outcome = end.refused ? failure(job, ErrorCode::kConfig, end.description)
                                   : failure(job, ErrorCode::kInternal, "died without a word: " + end.description);
  if (!why_not.empty()) {
    outcome.error += "; its outcome can't be read: " + why_not;
    return outcome;
  }
  write_file_durably(path, to_json(outcome).dump(2) + "\n");
  return outcome;
}

void Coordinator::end_attempt(JobRecord job, AttemptRecord attempt, const ProcessEnd& end) {
  const JobOutcome outcome = outcome_of(job, attempt, end);
  flush_progress();
  job = find_job(job.id);  // with its last progress
  const double now = options_.clock();
  const std::vector<CheckpointRecord> on_disk =
      checkpoints_on_disk(job.id, run_folder(job.id), now);
  Store::Transaction transaction = store_.begin();
  for (const CheckpointRecord& checkpoint : on_disk) checkpoint_committed(job, checkpoint);
  decide_end(job, attempt, outcome, end.machine_fault);
  end_alarms(job, /*of_ranks=*/true);
  transaction.commit();
  rank_alarms_.erase(job.id);
  looked_at_.erase(job.id);
  watchdog_.forget(job.id);
  told_to_stop_.erase(job.id);
  checkpoints_due_.erase(job.id);
  final_since_.erase(job.id);
  terminated_at_.erase(job.id);
  pending_until_.erase(job.id);
  live_progress_.erase(job.id);
  rank_board_.forget(job.id);
}

void Coordinator::decide_end(JobRecord& job, AttemptRecord& attempt, const JobOutcome& outcome, bool machine_fault) {
  const double now = options_.clock();
  JobOutcome told = outcome;
  told.attempts = attempt.number;
  const bool connected = attempt.state == "running";
  attempt.state = told.state;
  attempt.reason = told.error.empty() ? told.state : told.error;
  attempt.ended = now;
  attempt.outcome = to_json(told);
  store_.update_attempt(attempt);
  store_.release_leases(job.id, attempt.number);
  std::error_code ignored;  // a token of an attempt that has ended opens nothing
  std::filesystem::remove(worker_token_file(run_folder(job.id), attempt.number), ignored);
  job.outcome = attempt.outcome;
  job.ended = now;
  if (told.state == "succeeded") {
    job.digest = told.digest;
    apply(job, JobEvent::kAttemptSucceeded, attempt_name(attempt.number) + " succeeded");
    if (!job.parent.empty()) record_evaluation(job);
  } else if (job.cancel_requested) {
    apply(job, JobEvent::kCancelled,
          told.state == "failed" ? job.reason + "; it did not save: " + told.error
                                 : job.reason + ", after saving");
  } else if (job.state == JobState::kStopping) {
    apply(job, JobEvent::kAttemptStopped,
          (told.state == "failed" ? "stopped without saving" : "saved and stopped") +
              (told.error.empty() ? "" : ": " + told.error));
  } else {
    decide_restart(job, attempt, told, {.connected = connected, .machine_fault = machine_fault});
  }
  if (!job.parent.empty()) pins_due_.insert(job.parent);
  if (job.state == JobState::kCancelled || job.state == JobState::kFailed) {
    trim_evaluations(job.id, 0, "its parent " + job.id + " has " + to_string(job.state));
  } else if (job.state == JobState::kSucceeded) {
    trim_evaluations(job.id, 1, "its parent " + job.id + " is done: only the last is evaluated");
  }
}

void Coordinator::decide_restart(JobRecord& job, const AttemptRecord& attempt,
                                 const JobOutcome& outcome, const AttemptEnd& end) {
  // Ranks save and stop on SIGTERM too, as mpirun sends it to those that are left when one dies:
  // nobody asked for that end.
  const bool failed = outcome.state == "failed";
  const std::string what = attempt_name(attempt.number) +
                           (failed ? " failed: " : " stopped though nobody asked: ") +
                           outcome.error;
  if (failed && is_user_error(error_code_from_string(outcome.error_code))) {
    apply(job, JobEvent::kAttemptFailed, what + " (" + outcome.error_code + ": not retried)");
    return;
  }
  const bool progressed = progress_on_disk(run_folder(job.id)) > attempt.progress_mark;
  if (progressed) {
    job.failures = 0;
  } else if (!end.machine_fault) {
    ++job.failures;
  }
  // A host that is gone goes on being given work until it is missed.
  const bool lost_host = !end.connected && launcher_->unnoticed_loss_s() > 0;
  const int limit = lost_host ? kMaxFailures + static_cast<int>(launcher_->unnoticed_loss_s() / kHostDelay_s) : kMaxFailures;
  if (job.failures >= limit) {
    apply(job, JobEvent::kAttemptFailed, what + " (" + std::to_string(limit) + " attempts without progress)");
    return;
  }
  job.ended = 0;
  job.ranks = wanted_ranks(job);
  const double delay = job.failures <= 1 ? kFirstRestartDelay_s : lost_host ? kHostDelay_s : kRestartDelay_s;
  job.not_before = options_.clock() + delay;
  apply(job, JobEvent::kAttemptRetried, what + "; will be restarted");
}

void Coordinator::request_stop(JobRecord& job, bool cancel, const std::string& reason) {
  Store::Transaction transaction = store_.begin();
  note_stop(job, cancel, reason);
  transaction.commit();
  told_to_stop_.insert(job.id);
  send_to_all(job, {.type = MessageType::kStop, .body = {{"reason", reason}}});
}

void Coordinator::note_stop(JobRecord& job, bool cancel, const std::string& reason) {
  // What a cancelled job says at its end is why it was cancelled.
  const bool keeps_reason = job.cancel_requested && !cancel;
  job.cancel_requested = job.cancel_requested || cancel;
  if (job.state == JobState::kStopping) {
    update_reason(job, keeps_reason ? job.reason : reason);
  } else {
    job.stop_requested = options_.clock();
    apply(job, JobEvent::kStopRequested, reason);
  }
}

}  // namespace onestep
