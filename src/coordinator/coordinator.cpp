#include "coordinator/coordinator.h"

#include <algorithm>
#include <cmath>

#include "common/durable_file.h"
#include "common/log.h"
#include "coordinator/checkpoint_registry.h"
#include "coordinator/leases.h"
#include "coordinator/scheduler.h"

namespace onestep {
namespace {

using nlohmann::json;

constexpr int kMaxFailures = 3;              // attempts in a row without progress
constexpr double kFirstRestartDelay_s = 0.5;
constexpr double kRestartDelay_s = 2.0;
constexpr double kSaveTime_s = 20.0;         // from the request to stop until mpirun is told to end
constexpr double kTerminateTime_s = 3.0;     // from then until everything left is killed
constexpr double kLingerTime_s = 30.0;       // from an attempt's final state until the same
constexpr double kFlushInterval_s = 1.0;     // progress and metrics into the database
constexpr std::size_t kMaxWaitingEvaluations = 2;
constexpr int kMaxRanks = 1 << 16;

std::string attempt_name(int attempt) { return "attempt " + std::to_string(attempt); }

std::string ranks_text(int ranks) {
  return std::to_string(ranks) + (ranks == 1 ? " rank" : " ranks");
}

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

JobFilter of_pipeline(const std::string& id) {
  JobFilter filter;
  filter.pipeline = id;
  return filter;
}

JobFilter evaluations_of(const std::string& parent) {
  JobFilter filter;
  filter.parent = parent;
  return filter;
}

std::string prepare_data_folder(const std::string& data) {
  create_folders_durably(data + "/jobs");
  return data;
}

Refusal refusal(ErrorCode code, const std::string& reason) { return {code, reason}; }

// Field of a message; errors name message and field.
std::int64_t integer_field(const json& body, const std::string& message, const char* key,
                           std::int64_t min, std::int64_t max) {
  const auto value = body.find(key);
  const bool good = value != body.end() && value->is_number_integer() &&
                    value->get<std::int64_t>() >= min && value->get<std::int64_t>() <= max;
  if (good) return value->get<std::int64_t>();
  throw Error(ErrorCode::kCorrupt, message + " message: field " + key + "; expected an integer " +
                                       std::to_string(min) + " to " + std::to_string(max) +
                                       ", found " +
                                       (value == body.end() ? "nothing" : value->dump()));
}

std::string text_field(const json& body, const std::string& message, const char* key) {
  const auto value = body.find(key);
  if (value != body.end() && value->is_string()) return value->get<std::string>();
  throw Error(ErrorCode::kCorrupt, message + " message: field " + key + "; expected a text, found " +
                                       (value == body.end() ? "nothing" : value->dump()));
}

// The lowest and the highest point of each of max_points / 2 stretches, in their order.
std::vector<MetricPoint> thinned(std::vector<MetricPoint> points, std::int64_t max_points) {
  const auto size = static_cast<std::int64_t>(points.size());
  if (max_points <= 0 || size <= max_points) return points;
  if (max_points == 1) return {points.back()};
  const std::int64_t stretches = max_points / 2;
  std::vector<MetricPoint> kept;
  for (std::int64_t i = 0; i < stretches; ++i) {
    const auto first = points.begin() + i * size / stretches;
    const auto last = points.begin() + (i + 1) * size / stretches;
    const auto [low, high] =
        std::minmax_element(first, last, [](const MetricPoint& a, const MetricPoint& b) {
          return a.value < b.value;
        });
    kept.push_back(*std::min(low, high));
    if (low != high) kept.push_back(*std::max(low, high));
  }
  return kept;
}

}  // namespace

Hello hello_from_json(const json& body) {
  Hello hello;
  hello.job = text_field(body, "hello", "job");
  hello.attempt = static_cast<int>(integer_field(body, "hello", "attempt", 1, INT32_MAX));
  hello.ranks = static_cast<int>(integer_field(body, "hello", "ranks", 1, kMaxRanks));
  hello.rank = static_cast<int>(integer_field(body, "hello", "rank", 0, hello.ranks - 1));
  hello.pid = integer_field(body, "hello", "pid", 0, INT64_MAX);
  hello.host = text_field(body, "hello", "host");
  hello.commit = text_field(body, "hello", "commit");
  return hello;
}

Coordinator::Coordinator(CoordinatorOptions options, std::unique_ptr<Launcher> launcher)
    : options_(std::move(options)),
      lock_(prepare_data_folder(options_.data)),
      store_(options_.data + "/coordinator.sqlite"),
      launcher_(std::move(launcher)) {
  reconcile();
}

// --- REST ---

JobRecord Coordinator::find_job(const std::string& id) {
  if (std::optional<JobRecord> job = store_.job(id)) return *job;
  if (std::optional<JobRecord> job = store_.newest_job_named(id)) return *job;
  throw Error(ErrorCode::kNotFound, "job \"" + id + "\": expected an id or a name, found no such job");
}

PipelineRecord Coordinator::submit(const Pipeline& pipeline) {
  Store::Transaction transaction = store_.begin();
  PipelineRecord record;
  record.number = store_.next_pipeline_number();
  record.name = pipeline.name;
  record.id = pipeline.name + "-p" + std::to_string(record.number);
  record.created = options_.clock();
  store_.insert_pipeline(record);
  std::map<std::string, std::string> ids;
  for (const PipelineJob& entry : pipeline.jobs) {
    JobRecord job;
    job.number = store_.next_job_number();
    job.name = entry.spec.name;
    job.id = job.name + "-" + std::to_string(job.number);
    job.kind = entry.spec.kind;
    job.pipeline = record.id;
    job.ranks = entry.spec.ranks;
    for (const std::string& name : entry.after) job.after.push_back(ids.at(name));
    job.spec = to_json(entry.spec);
    job.reason = "submitted";
    job.created = record.created;
    store_.insert_job(job);
    ids[job.name] = job.id;
    record.jobs.push_back(job.id);
  }
  transaction.commit();
  update_dependencies();
  return record;
}

PipelineRecord Coordinator::pipeline(const std::string& id) {
  if (std::optional<PipelineRecord> found = store_.pipeline(id)) return *found;
  throw Error(ErrorCode::kNotFound, "pipeline \"" + id + "\": expected an id, found no such pipeline");
}

std::vector<JobRecord> Coordinator::jobs(const JobFilter& filter) {
  std::vector<JobRecord> jobs = store_.jobs(filter);
  for (JobRecord& job : jobs) {
    const auto latest = latest_progress_.find(job.id);
    if (latest != latest_progress_.end()) job.progress = latest->second;
  }
  return jobs;
}

JobRecord Coordinator::job(const std::string& id) {
  JobRecord job = find_job(id);
  const auto latest = latest_progress_.find(job.id);
  if (latest != latest_progress_.end()) job.progress = latest->second;
  return job;
}

std::vector<AttemptRecord> Coordinator::attempts(const std::string& id) {
  return store_.attempts(find_job(id).id);
}

JobRecord Coordinator::cancel(const std::string& id) {
  JobRecord job = find_job(id);
  if (job.state == JobState::kCancelled) return job;
  if (is_terminal(job.state)) {
    throw Error(ErrorCode::kConflict, "job " + job.id + " can't be cancelled: it has " +
                                          to_string(job.state) + " (" + job.reason + ")");
  }
  if (is_active(job.state)) {
    request_stop(job, true, "cancelled by request");
  } else {
    Store::Transaction transaction = store_.begin();
    job.ended = options_.clock();
    apply(job, JobEvent::kCancelled, "cancelled by request");
    trim_evaluations(job.id, 0, "its parent " + job.id + " was cancelled");
    transaction.commit();
    if (!job.parent.empty()) pins_due_.insert(job.parent);
    update_dependencies();
  }
  return job;
}

JobRecord Coordinator::resume(const std::string& id) {
  JobRecord job = find_job(id);
  if (!next_state(job.state, JobEvent::kResume)) {
    throw Error(ErrorCode::kConflict, "job " + job.id + " can't be resumed: it is " +
                                          to_string(job.state) +
                                          "; expected failed, cancelled or interrupted");
  }
  Store::Transaction transaction = store_.begin();
  job.failures = 0;
  job.not_before = 0;
  job.cancel_requested = false;
  job.stop_requested = 0;
  job.ended = 0;
  apply(job, JobEvent::kResume, "resumed by request");
  transaction.commit();
  if (!job.parent.empty()) pins_due_.insert(job.parent);
  update_dependencies();
  return find_job(job.id);
}

JobRecord Coordinator::checkpoint_now(const std::string& id) {
  const JobRecord job = find_job(id);
  if (!is_training_kind(job.kind)) {
    throw Error(ErrorCode::kConflict, "job " + job.id + " has no checkpoints: it is of kind " +
                                          job.kind + "; expected a training kind");
  }
  if (job.state != JobState::kRunning) {
    throw Error(ErrorCode::kConflict, "job " + job.id + " can't save a checkpoint now: it is " +
                                          to_string(job.state) + "; expected running");
  }
  send_to_all(job, {.type = MessageType::kCheckpointNow});
  return job;
}

std::vector<CheckpointRecord> Coordinator::checkpoints(const std::string& id) {
  return store_.checkpoints(find_job(id).id);
}

std::vector<MetricSeries> Coordinator::metrics(const std::string& id,
                                               const std::vector<std::string>& keys,
                                               std::int64_t max_points) {
  const JobRecord job = find_job(id);
  flush_progress();
  std::vector<MetricSeries> series;
  for (MetricPoint& point : store_.metrics(job.id, keys)) {
    auto known = std::find_if(series.begin(), series.end(), [&](const MetricSeries& candidate) {
      return candidate.key == point.key;
    });
    if (known == series.end()) known = series.insert(series.end(), {point.key, {}});
    known->points.push_back(std::move(point));
  }
  for (MetricSeries& one : series) one.points = thinned(std::move(one.points), max_points);
  return series;
}

std::vector<LeaseRecord> Coordinator::shards(const std::string& id) {
  const JobRecord job = find_job(id);
  const JobSpec spec = resolved_spec(job);
  const auto* options = std::get_if<GeneratePairsSpec>(&spec.options);
  if (options == nullptr) return {};
  return plan_with_leases(*options, spec.ranks, store_.leases(job.id));
}

std::string Coordinator::run_folder(const std::string& job) const {
  return options_.data + "/jobs/" + job;
}

json Coordinator::worker_spec(const std::string& id) {
  return to_json(resolved_spec(find_job(id)));
}

JobSpec Coordinator::resolved_spec(const JobRecord& job) {
  JobSpec spec = parse_job_spec(job.spec, options_.data, "job " + job.id);
  const std::vector<JobRecord> siblings = store_.jobs(of_pipeline(job.pipeline));
  spec = substitute_references(std::move(spec), [&](const std::string& name) {
    for (const JobRecord& sibling : siblings) {
      if (sibling.parent.empty() && sibling.name == name) return run_folder(sibling.id);
    }
    throw Error(ErrorCode::kNotFound,
                "job " + job.id + ": @" + name + "; expected a job of its pipeline, found none");
  });
  spec.output = run_folder(job.id);
  return spec;
}

// --- jobs and what they wait for ---

void Coordinator::apply(JobRecord& job, JobEvent event, const std::string& reason) {
  const std::optional<JobState> next = next_state(job.state, event);
  if (!next) {
    throw Error(ErrorCode::kInternal, "job " + job.id + ": event " + to_string(event) +
                                          " makes no sense while it is " + to_string(job.state));
  }
  log_info(job.id + ": " + to_string(job.state) + " -> " + to_string(*next) + ": " + reason);
  job.state = *next;
  job.reason = reason;
  store_.update_job(job);
}

void Coordinator::update_dependencies() {
  // By number: whatever a job comes after has a smaller one, so one pass carries a change to the end of the graph.
  for (JobRecord& job : store_.unfinished_jobs()) {
    if (job.state != JobState::kWaiting && job.state != JobState::kBlocked) continue;
    std::string blocked_by;
    std::string waits_for;
    for (const std::string& id : job.after) {
      const JobRecord needed = find_job(id);
      const std::string text = id + ", which is " + to_string(needed.state);
      const bool bad = needed.state == JobState::kFailed || needed.state == JobState::kCancelled ||
                       needed.state == JobState::kBlocked;
      if (bad && blocked_by.empty()) blocked_by = text;
      if (needed.state != JobState::kSucceeded && waits_for.empty()) waits_for = text;
    }
    Store::Transaction transaction = store_.begin();
    if (!blocked_by.empty()) {
      const std::string reason = "needs " + blocked_by + "; resume that one to go on";
      if (job.state == JobState::kWaiting) {
        apply(job, JobEvent::kDependencyFailed, reason);
      } else if (job.reason != reason) {
        job.reason = reason;
        store_.update_job(job);
      } else {
        continue;
      }
    } else {
      if (job.state == JobState::kBlocked) {
        apply(job, JobEvent::kDependencyResumed, "what it needs was resumed");
      }
      if (waits_for.empty()) {
        apply(job, JobEvent::kDependenciesMet, "ready");
      } else if (const std::string reason = "waits for " + waits_for; job.reason != reason) {
        job.reason = reason;
        store_.update_job(job);
      } else {
        continue;
      }
    }
    transaction.commit();
  }
}

void Coordinator::start_ready_jobs() {
  if (stopping_) return;
  std::vector<ReadyJob> ready;
  std::vector<RunningJob> running;
  std::map<std::string, JobRecord> queued;
  for (const JobRecord& job : store_.unfinished_jobs()) {
    const bool evaluation = !job.parent.empty();
    if (is_active(job.state)) running.push_back({job.id, job.ranks, evaluation});
    if (job.state != JobState::kQueued) continue;
    ready.push_back({job.id, job.number, job.ranks, evaluation, job.not_before});
    queued.emplace(job.id, job);
  }
  for (const Decision& decision : schedule(ready, running, options_.slots, options_.clock())) {
    JobRecord& job = queued.at(decision.id);
    if (decision.start) {
      start(job, decision.reason);
    } else if (job.attempts == 0 && job.reason != decision.reason) {
      // A job that waits for its restart keeps the reason why it is restarted.
      Store::Transaction transaction = store_.begin();
      job.reason = decision.reason;
      store_.update_job(job);
      transaction.commit();
    }
  }
}

LaunchRequest Coordinator::launch_request(const JobRecord& job, int attempt) const {
  return {.job = job.id,
          .attempt = attempt,
          .ranks = job.ranks,
          .run_folder = run_folder(job.id),
          .coordinator_file = options_.data + "/coordinator.address",
          .background = !job.parent.empty()};
}

void Coordinator::write_run_folder(const JobRecord& job) {
  const std::string run = run_folder(job.id);
  create_folders_durably(run + "/logs");
  write_file_durably(job_file(run), to_json(resolved_spec(job)).dump(2) + "\n");
}

void Coordinator::start(JobRecord job, const std::string& reason) {
  AttemptRecord attempt;
  {
    // Written down before it is done: a coordinator that dies in between looks for the attempt's processes.
    Store::Transaction transaction = store_.begin();
    job.attempts += 1;
    if (job.started == 0) job.started = options_.clock();
    attempt.job = job.id;
    attempt.number = job.attempts;
    attempt.state = "starting";
    attempt.reason = reason;
    attempt.started = options_.clock();
    attempt.progress_mark = progress_on_disk(run_folder(job.id));
    store_.insert_attempt(attempt);
    apply(job, JobEvent::kLaunch, attempt_name(attempt.number) + " starts: " + reason);
    transaction.commit();
  }
  try {
    write_run_folder(job);
    const ProcessIdentity process = launcher_->launch(launch_request(job, attempt.number));
    Store::Transaction transaction = store_.begin();
    attempt.pid = process.pid;
    attempt.start_time = process.start_time;
    store_.update_attempt(attempt);
    transaction.commit();
  } catch (const Error& error) {
    // Launched but not written down: it must not run beside the next attempt.
    launcher_->kill_all(launch_request(job, attempt.number));
    Store::Transaction transaction = store_.begin();
    decide_end(job, attempt,
               failure(job, error.code(), std::string("could not be launched: ") + error.what()));
    transaction.commit();
  }
}

// --- attempts ---

void Coordinator::reconcile() {
  for (JobRecord& job : store_.unfinished_jobs()) {
    if (!is_active(job.state)) continue;
    AttemptRecord attempt = store_.attempt(job.id, job.attempts).value();
    if (!attempt.outcome.is_null()) final_since_[job.id] = options_.clock();
    if (attempt.pid != 0) continue;
    const std::optional<ProcessIdentity> found =
        launcher_->find(launch_request(job, attempt.number));
    Store::Transaction transaction = store_.begin();
    if (found) {
      attempt.pid = found->pid;
      attempt.start_time = found->start_time;
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
        apply(job, JobEvent::kAttemptRetried, attempt_name(attempt.number) + ": " + attempt.reason);
      }
    }
    transaction.commit();
  }
  for (const JobRecord& job : store_.jobs({})) {
    if (job.kind == "distill") pins_due_.insert(job.id);
  }
  if (const std::optional<Error> trouble = watch_attempts()) {
    log_error(std::string(trouble->what()) + "; will be tried again");
  }
  update_dependencies();
}

std::optional<Error> Coordinator::watch_attempts() {
  std::optional<Error> trouble;
  for (const JobRecord& job : store_.unfinished_jobs()) {
    if (!is_active(job.state)) continue;
    try {
      watch_attempt(job);
    } catch (const Error& error) {
      // What stands in the way of one job (its disk is full, say) must not keep the others from going on.
      if (!trouble) trouble.emplace(error.code(), job.id + ": " + error.what());
    }
  }
  return trouble;
}

void Coordinator::watch_attempt(const JobRecord& job) {
  const AttemptRecord attempt = store_.attempt(job.id, job.attempts).value();
  const std::optional<ProcessEnd> end = launcher_->poll({attempt.pid, attempt.start_time});
  if (!end) {
    enforce_stop(job, attempt);
    return;
  }
  // Ranks that outlived their mpirun would go on writing.
  const int left = launcher_->kill_all(launch_request(job, attempt.number));
  if (left > 0) {
    log_warning(job.id + " " + attempt_name(attempt.number) + ": killed " + std::to_string(left) +
                " processes that outlived mpirun");
  }
  end_attempt(job, attempt, *end);
}

void Coordinator::enforce_stop(const JobRecord& job, const AttemptRecord& attempt) {
  const double now = options_.clock();
  const auto terminated = terminated_at_.find(job.id);
  if (terminated != terminated_at_.end()) {
    if (now - terminated->second >= kTerminateTime_s) {
      launcher_->kill_all(launch_request(job, attempt.number));
    }
    return;
  }
  const auto final = final_since_.find(job.id);
  const bool lingers = final != final_since_.end() && now - final->second >= kLingerTime_s;
  const bool overdue =
      job.state == JobState::kStopping && now - job.stop_requested >= kSaveTime_s;
  if (!lingers && !overdue) return;
  log_warning(job.id + ": " + attempt_name(attempt.number) +
              (overdue ? " did not save and end in time" : " lingers after its end") +
              "; telling mpirun to end");
  launcher_->terminate({attempt.pid, attempt.start_time});
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
  JobOutcome outcome =
      failure(job, ErrorCode::kInternal, "died without a word: " + end.description);
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
  decide_end(job, attempt, outcome);
  transaction.commit();
  final_since_.erase(job.id);
  terminated_at_.erase(job.id);
}

void Coordinator::decide_end(JobRecord& job, AttemptRecord& attempt, const JobOutcome& outcome) {
  const double now = options_.clock();
  JobOutcome told = outcome;
  told.attempts = attempt.number;
  attempt.state = told.state;
  attempt.reason = told.error.empty() ? told.state : told.error;
  attempt.ended = now;
  attempt.outcome = to_json(told);
  store_.update_attempt(attempt);
  store_.release_leases(job.id, attempt.number);
  job.outcome = attempt.outcome;
  job.ended = now;
  if (told.state == "succeeded") {
    job.digest = told.digest;
    apply(job, JobEvent::kAttemptSucceeded, attempt_name(attempt.number) + " succeeded");
    if (!job.parent.empty()) record_evaluation(job);
  } else if (job.cancel_requested) {
    apply(job, JobEvent::kCancelled,
          told.state == "failed" ? "cancelled by request; it did not save: " + told.error
                                 : "cancelled by request, after saving");
  } else if (job.state == JobState::kStopping) {
    apply(job, JobEvent::kAttemptStopped,
          (told.state == "failed" ? "stopped without saving" : "saved and stopped") +
              (told.error.empty() ? "" : ": " + told.error));
  } else {
    decide_restart(job, attempt, told);
  }
  if (!job.parent.empty()) pins_due_.insert(job.parent);
  if (job.state == JobState::kCancelled || job.state == JobState::kFailed) {
    trim_evaluations(job.id, 0, "its parent " + job.id + " has " + to_string(job.state));
  } else if (job.state == JobState::kSucceeded) {
    trim_evaluations(job.id, 1, "its parent " + job.id + " is done: only the last is evaluated");
  }
}

void Coordinator::decide_restart(JobRecord& job, const AttemptRecord& attempt,
                                 const JobOutcome& outcome) {
  // Ranks save and stop on SIGTERM too, as mpirun sends it to those that are left when one dies: nobody asked for that end.
  const bool failed = outcome.state == "failed";
  const std::string what = attempt_name(attempt.number) +
                           (failed ? " failed: " : " stopped though nobody asked: ") + outcome.error;
  if (failed && is_user_error(error_code_from_string(outcome.error_code))) {
    apply(job, JobEvent::kAttemptFailed, what + " (" + outcome.error_code + ": not retried)");
    return;
  }
  const bool progressed = progress_on_disk(run_folder(job.id)) > attempt.progress_mark;
  job.failures = progressed ? 0 : job.failures + 1;
  if (job.failures >= kMaxFailures) {
    apply(job, JobEvent::kAttemptFailed,
          what + " (" + std::to_string(kMaxFailures) + " attempts without progress)");
    return;
  }
  job.ended = 0;
  job.not_before =
      options_.clock() + (job.failures <= 1 ? kFirstRestartDelay_s : kRestartDelay_s);
  apply(job, JobEvent::kAttemptRetried, what + "; will be restarted");
}

void Coordinator::request_stop(JobRecord& job, bool cancel, const std::string& reason) {
  Store::Transaction transaction = store_.begin();
  job.cancel_requested = job.cancel_requested || cancel;
  if (job.state == JobState::kStopping) {
    job.reason = reason;
    store_.update_job(job);
  } else {
    job.stop_requested = options_.clock();
    apply(job, JobEvent::kStopRequested, reason);
  }
  transaction.commit();
  send_to_all(job, {.type = MessageType::kStop, .body = {{"reason", reason}}});
}

// --- checkpoints and their evaluations ---

void Coordinator::checkpoint_committed(const JobRecord& job, const CheckpointRecord& checkpoint) {
  if (!store_.insert_checkpoint(checkpoint)) return;
  log_info(job.id + ": checkpoint at iteration " + std::to_string(checkpoint.iteration));
  if (job.kind == "distill") schedule_evaluation(job, checkpoint);
}

void Coordinator::schedule_evaluation(const JobRecord& job, const CheckpointRecord& checkpoint) {
  const JobSpec distill = resolved_spec(job);
  if (std::get<DistillSpec>(distill.options).evaluation.detector.empty()) return;
  for (const JobRecord& known : store_.jobs(evaluations_of(job.id))) {
    // Another attempt's checkpoint of the same iteration holds the same weights.
    const bool useless = known.state == JobState::kFailed || known.state == JobState::kCancelled;
    if (known.parent_iteration == checkpoint.iteration && !useless) return;
  }
  const JobSpec spec = evaluation_spec(distill, checkpoint);
  JobRecord evaluation;
  evaluation.number = store_.next_job_number();
  evaluation.name = spec.name;
  evaluation.id = spec.name + "-" + std::to_string(evaluation.number);
  evaluation.kind = spec.kind;
  evaluation.pipeline = job.pipeline;
  evaluation.parent = job.id;
  evaluation.parent_iteration = checkpoint.iteration;
  evaluation.ranks = spec.ranks;
  evaluation.spec = to_json(spec);
  evaluation.reason = "checkpoint committed";
  evaluation.created = options_.clock();
  store_.insert_job(evaluation);
  apply(evaluation, JobEvent::kDependenciesMet, "ready");
  trim_evaluations(job.id, kMaxWaitingEvaluations,
                   "skipped: newer checkpoints wait for their evaluation");
  pins_due_.insert(job.id);
}

void Coordinator::trim_evaluations(const std::string& parent, std::size_t keep,
                                   const std::string& reason) {
  std::vector<JobRecord> waiting;
  for (const JobRecord& job : store_.jobs(evaluations_of(parent))) {
    if (job.state != JobState::kQueued) continue;
    if (job.attempts == 0 || keep == 0) waiting.push_back(job);
  }
  for (std::size_t i = 0; i + keep < waiting.size(); ++i) {
    waiting[i].ended = options_.clock();
    apply(waiting[i], JobEvent::kCancelled, reason);
  }
  if (!waiting.empty()) pins_due_.insert(parent);
}

void Coordinator::record_evaluation(const JobRecord& evaluation) {
  const json result = evaluation.outcome.value("result", json::object());
  for (CheckpointRecord& checkpoint : store_.checkpoints(evaluation.parent)) {
    if (checkpoint.iteration != evaluation.parent_iteration) continue;
    for (const MetricPoint& point : evaluation_metrics(result, checkpoint)) {
      store_.insert_metric(evaluation.parent, point);
    }
    const auto frechet = result.find("frechet");
    if (frechet != result.end() && frechet->is_number()) {
      checkpoint.frechet = frechet->get<double>();
      store_.update_checkpoint(checkpoint);
    }
  }
  for (const CheckpointRecord& changed : mark_best(store_.checkpoints(evaluation.parent))) {
    store_.update_checkpoint(changed);
  }
}

void Coordinator::update_pins(const std::string& job) {
  const std::vector<CheckpointRecord> checkpoints = store_.checkpoints(job);
  std::set<std::string> wanted;
  for (const CheckpointRecord& checkpoint : checkpoints) {
    if (checkpoint.best) wanted.insert(checkpoint.folder);
  }
  for (const JobRecord& evaluation : store_.jobs(evaluations_of(job))) {
    if (is_terminal(evaluation.state)) continue;
    wanted.insert(std::get<EvaluateSpec>(resolved_spec(evaluation).options).model);
  }
  set_pins(checkpoints, wanted);
}

// --- telemetry ---

void Coordinator::send_to_all(const JobRecord& job, const Message& command) {
  if (sender_) sender_({job.id, job.attempts, -1}, command);
}

std::optional<Refusal> Coordinator::fence(const std::string& job_id, int attempt, int rank,
                                          std::optional<JobRecord>& job) {
  job = store_.job(job_id);
  if (!job) return refusal(ErrorCode::kNotFound, "unknown job \"" + job_id + "\"");
  if (attempt != job->attempts) {
    return refusal(ErrorCode::kConflict, "stale attempt: expected " + std::to_string(job->attempts) +
                                             " of " + job_id + ", found " +
                                             std::to_string(attempt));
  }
  if (!is_active(job->state)) {
    return refusal(ErrorCode::kConflict, attempt_name(attempt) + " of " + job_id +
                                             " has ended: the job is " + to_string(job->state));
  }
  if (rank < 0 || rank >= job->ranks) {
    return refusal(ErrorCode::kMismatch, "rank of " + job_id + ": expected 0 to " +
                                             std::to_string(job->ranks - 1) + ", found " +
                                             std::to_string(rank));
  }
  return std::nullopt;
}

HelloAnswer Coordinator::hello(const Hello& hello) {
  std::optional<JobRecord> job;
  HelloAnswer answer;
  answer.refusal = fence(hello.job, hello.attempt, hello.rank, job);
  if (answer.refusal) return answer;
  if (hello.ranks != job->ranks) {
    answer.refusal = refusal(ErrorCode::kMismatch,
                             "ranks of " + hello.job + ": expected " + std::to_string(job->ranks) +
                                 ", found " + std::to_string(hello.ranks));
    return answer;
  }
  if (hello.rank == 0 && job->state == JobState::kStarting) {
    Store::Transaction transaction = store_.begin();
    AttemptRecord attempt = store_.attempt(job->id, job->attempts).value();
    attempt.state = "running";
    store_.update_attempt(attempt);
    apply(*job, JobEvent::kConnected,
          attempt_name(job->attempts) + " runs on " + ranks_text(job->ranks));
    transaction.commit();
  }
  if (job->state == JobState::kStopping) {
    answer.commands.push_back({.type = MessageType::kStop, .body = {{"reason", job->reason}}});
  }
  return answer;
}

MessageAnswer Coordinator::on_message(const RankId& from, const Message& message) {
  MessageAnswer answer;
  std::optional<JobRecord> job;
  answer.refusal = fence(from.job, from.attempt, from.rank, job);
  if (answer.refusal) return answer;
  try {
    if (must_be_acknowledged(message.type)) return store_fact(*job, from, message);
    switch (message.type) {
      case MessageType::kHeartbeat:
        break;
      case MessageType::kProgress:
        take_progress(from, message.body);
        break;
      case MessageType::kLeaseRequest:
        answer.replies.push_back({.type = MessageType::kShardPlan,
                                  .body = shard_plan_body(grant(*job, from))});
        break;
      default:
        answer.refusal = refusal(ErrorCode::kCorrupt,
                                 "a worker can't send a message of type " +
                                     std::to_string(static_cast<int>(message.type)) + " here");
    }
  } catch (const Error& error) {
    answer.refusal = refusal(error.code(), error.what());
  } catch (const json::exception& error) {
    answer.refusal = refusal(ErrorCode::kCorrupt, std::string("message body: ") + error.what());
  }
  return answer;
}

MessageAnswer Coordinator::store_fact(const JobRecord& job, const RankId& from,
                                      const Message& message) {
  const json& body = message.body;
  if (message.sequence == 0) {
    throw Error(ErrorCode::kCorrupt, "a message to be acknowledged: expected a sequence >= 1, found 0");
  }
  // Left by an earlier attempt and delivered by this one: it keeps the number it was written under.
  const std::string what = "message to be acknowledged";
  const int attempt =
      static_cast<int>(integer_field(body, what, "attempt", 1, job.attempts));
  const bool is_left = body.contains("origin_sequence");
  const std::int64_t sequence =
      is_left ? integer_field(body, what, "origin_sequence", 1, INT64_MAX)
              : static_cast<std::int64_t>(message.sequence);
  const int rank =
      is_left ? static_cast<int>(integer_field(body, what, "origin_rank", 0, kMaxRanks)) : from.rank;
  const int origin =
      is_left ? static_cast<int>(integer_field(body, what, "origin_attempt", 1, job.attempts))
              : from.attempt;

  Store::Transaction transaction = store_.begin();
  if (store_.remember_message(job.id, origin, rank, static_cast<std::uint64_t>(sequence))) {
    if (message.type == MessageType::kCheckpointCommitted) {
      checkpoint_committed(job, committed_checkpoint(job.id, run_folder(job.id), body,
                                                     options_.clock()));
    } else if (message.type == MessageType::kShardDone) {
      const JobSpec spec = resolved_spec(job);
      const auto* options = std::get_if<GeneratePairsSpec>(&spec.options);
      if (options == nullptr) {
        throw Error(ErrorCode::kMismatch, "shard_done message: job " + job.id + " is of kind " +
                                              job.kind + "; expected generate_pairs");
      }
      store_.put_lease(job.id, finished_shard(*options, spec.ranks, attempt, body));
    } else {
      take_final_state(job, body);
    }
  }
  transaction.commit();
  MessageAnswer answer;
  answer.acknowledge = message.sequence;
  return answer;
}

void Coordinator::take_final_state(const JobRecord& job, const json& body) {
  const auto number =
      static_cast<int>(integer_field(body, "final_state", "attempt", 1, job.attempts));
  const auto outcome = body.find("outcome");
  if (outcome == body.end()) {
    throw Error(ErrorCode::kCorrupt, "final_state message: field outcome; expected one, found nothing");
  }
  const JobOutcome told = job_outcome_from_json(*outcome, "final_state message of " + job.id);
  std::optional<AttemptRecord> attempt = store_.attempt(job.id, number);
  if (!attempt) {
    throw Error(ErrorCode::kNotFound, "final_state message: " + attempt_name(number) + " of " +
                                          job.id + "; expected a known attempt, found none");
  }
  // An earlier attempt's end is a fact about that attempt; what the job is now was decided without it.
  attempt->outcome = to_json(told);
  store_.update_attempt(*attempt);
  if (number == job.attempts) final_since_[job.id] = options_.clock();
}

void Coordinator::take_progress(const RankId& from, const json& body) {
  const std::int64_t iteration = integer_field(body, "progress", "iteration", 0, INT64_MAX);
  const std::int64_t images = integer_field(body, "progress", "images", 0, INT64_MAX);
  const std::string stage = text_field(body, "progress", "stage");
  const auto metrics = body.find("metrics");
  if (metrics != body.end() && !metrics->is_object()) {
    throw Error(ErrorCode::kCorrupt, "progress message: field metrics; expected an object, found " +
                                         std::string(metrics->type_name()));
  }
  (void)body.dump();  // a text that is no UTF-8 is refused here, not when it is written down
  const auto add = [&](const std::string& key, const json& value) {
    // JSON and SQL know no NaN; a metric that is none leaves a gap in its curve.
    if (!value.is_number() || !std::isfinite(value.get<double>())) return;
    pending_metrics_.emplace_back(
        from.job,
        MetricPoint{key, stage, iteration, images, from.attempt, from.rank, value.get<double>()});
  };
  if (metrics != body.end()) {
    for (const auto& [key, value] : metrics->items()) add(key, value);
  }
  if (const auto speed = body.find("images_per_second"); speed != body.end()) {
    add("images_per_second", *speed);
  }
  latest_progress_[from.job] = body;
}

std::vector<LeaseRecord> Coordinator::grant(const JobRecord& job, const RankId& to) {
  const JobSpec spec = resolved_spec(job);
  const auto* options = std::get_if<GeneratePairsSpec>(&spec.options);
  if (options == nullptr) {
    throw Error(ErrorCode::kMismatch, "lease request: job " + job.id + " is of kind " + job.kind +
                                          "; expected generate_pairs");
  }
  const std::string run = run_folder(job.id);
  const std::vector<LeaseRecord> leases =
      grant_leases(*options, spec.ranks, to.rank, to.attempt, store_.leases(job.id),
                   [&](const std::string& name) { return file_exists(run + "/" + name); });
  Store::Transaction transaction = store_.begin();
  for (const LeaseRecord& lease : leases) store_.put_lease(job.id, lease);
  transaction.commit();
  return leases;
}

void Coordinator::flush_progress() {
  last_flush_ = options_.clock();
  if (pending_metrics_.empty() && latest_progress_.empty()) return;
  Store::Transaction transaction = store_.begin();
  for (const auto& [job, point] : pending_metrics_) store_.insert_metric(job, point);
  for (const auto& [id, progress] : latest_progress_) {
    JobRecord job = store_.job(id).value();
    job.progress = progress;
    store_.update_job(job);
  }
  transaction.commit();
  pending_metrics_.clear();
  latest_progress_.clear();
}

// --- time ---

void Coordinator::tick() {
  const std::optional<Error> trouble = watch_attempts();
  update_dependencies();
  start_ready_jobs();
  while (!pins_due_.empty()) {
    update_pins(*pins_due_.begin());
    pins_due_.erase(pins_due_.begin());
  }
  if (options_.clock() - last_flush_ >= kFlushInterval_s) flush_progress();
  if (trouble) throw Error(*trouble);
}

void Coordinator::stop_all(const std::string& reason) {
  stopping_ = true;
  for (JobRecord& job : store_.unfinished_jobs()) {
    if (is_active(job.state)) request_stop(job, false, reason);
  }
}

bool Coordinator::idle() {
  const std::vector<JobRecord> jobs = store_.unfinished_jobs();
  return std::none_of(jobs.begin(), jobs.end(),
                      [](const JobRecord& job) { return is_active(job.state); });
}

}  // namespace onestep
