#include "coordinator/coordinator.h"

#include "common/durable_file.h"
#include "common/log.h"
#include "coordinator/job_view.h"
#include "coordinator/leases.h"

#include <algorithm>
#include <filesystem>
#include <limits>
#include <utility>

namespace onestep {
namespace {

using nlohmann::json;

constexpr double kKeyLifetime_s = 7 * 86400;  // of an Idempotency-Key
constexpr double kForgetInterval_s = 3600;
constexpr double kCapacityAge_s = 2.0;  // of a capacity that changes by itself, until jobs in the line look again
constexpr double kFlushInterval_s = 1.0;  // progress and metrics into the database

JobFilter of_pipeline(const std::string& id) {
  JobFilter filter;
  filter.pipeline = id;
  return filter;
}

std::string prepare_data_folder(const std::string& data) {
  create_folders_durably(data + "/jobs");
  return data;
}

// Attempts are numbered from 1 in a run folder, so that one folder can't serve two jobs.
void require_new_folder(const JobSpec& spec) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  if (spec.output.empty() || !fs::exists(spec.output, ignored)) return;
  if (fs::is_directory(spec.output, ignored) && fs::is_empty(spec.output, ignored)) return;
  throw Error(ErrorCode::kConflict, "job " + spec.name + ": output: " + spec.output +
                                        ": expected a new or empty folder, found " +
                                        (fs::is_directory(spec.output, ignored)
                                             ? "files in it"
                                             : "something that is no folder"));
}

}  // namespace

Coordinator::Coordinator(CoordinatorOptions options, std::unique_ptr<Launcher> launcher)
    : options_(std::move(options)),
      lock_(prepare_data_folder(options_.data)),
      store_(options_.data + "/coordinator.sqlite"),
      launcher_(std::move(launcher)),
      started_(options_.clock()),
      slots_(options_.slots) {
  store_.copy_log_beside_the_work();
  reconcile();
}

// --- time ---

void Coordinator::tick() {
  const std::optional<Error> trouble = watch_attempts();
  // With thousands of jobs in the line it takes a while to look at all, and where nothing has changed nothing is decided.
  const std::uint64_t changes = num_changes_;
  const bool undecided = settled_changes_ != changes || options_.clock() >= look_again_;
  if (undecided) update_dependencies();
  while (!pins_due_.empty()) {
    update_pins(*pins_due_.begin());
    pins_due_.erase(pins_due_.begin());
  }
  if (undecided) start_ready_jobs();
  settled_changes_ = changes;
  if (options_.clock() - last_flush_ >= kFlushInterval_s) flush_progress();
  if (options_.clock() - last_forgotten_ >= kForgetInterval_s) {
    last_forgotten_ = options_.clock();
    Store::Transaction transaction = store_.begin();
    store_.forget_submissions(last_forgotten_ - kKeyLifetime_s);
    transaction.commit();
  }
  for (const std::string& id : std::exchange(checkpoints_due_, {})) {
    const JobRecord job = find_job(id);
    if (job.state == JobState::kRunning) send_to_all(job, {.type = MessageType::kCheckpointNow});
  }
  if (trouble) throw Error(*trouble);
}

void Coordinator::stop_all(const std::string& reason) {
  stopping_ = true;
  for (JobRecord& job : store_.unfinished_jobs()) {
    if (is_active(job.state)) request_stop(job, false, reason);
  }
}

int Coordinator::resume_stopped() {
  const std::vector<JobRecord> stopped = store_.jobs_in({JobState::kInterrupted}, /*summaries=*/true);
  for (const JobRecord& job : stopped) resume(job.id);
  return static_cast<int>(stopped.size());
}

bool Coordinator::idle() {
  const std::vector<JobRecord> jobs = store_.unfinished_jobs();
  return std::none_of(jobs.begin(), jobs.end(),
                      [](const JobRecord& job) { return is_active(job.state); });
}

// --- REST ---

JobRecord Coordinator::find_job(const std::string& id) {
  if (std::optional<JobRecord> job = store_.job(id)) return *job;
  if (std::optional<JobRecord> job = store_.newest_job_named(id)) return *job;
  throw Error(ErrorCode::kNotFound,
              "job \"" + id + "\": expected an id or a name, found no such job");
}

PipelineRecord Coordinator::submit(const Pipeline& pipeline, const std::optional<SubmissionRecord>& key, const AnswerOf& answer_of) {
  for (const PipelineJob& entry : pipeline.jobs) require_new_folder(entry.spec);
  Store::Transaction transaction = store_.begin();
  PipelineRecord record;
  record.number = store_.next_pipeline_number();
  record.name = pipeline.name;
  record.id = pipeline.name + "-p" + std::to_string(record.number);
  record.created = options_.clock();
  store_.insert_pipeline(record);
  std::map<std::string, std::string> ids;
  std::vector<JobRecord> submitted;
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
    emit_state(job);
    ids[job.name] = job.id;
    record.jobs.push_back(job.id);
    submitted.push_back(job);
    // From now on the folder is this job's: nobody else may name it.
    if (!entry.spec.output.empty()) write_run_folder(job);
  }
  // What can run at once is ready in the same transaction: one sync of the disk a submission.
  settle_dependencies(submitted, [] {});
  const std::string answer = answer_of ? answer_of(record) : "";
  if (key) {
    SubmissionRecord submission = *key;
    submission.pipeline = record.id;
    submission.created = record.created;
    submission.answer = answer;
    store_.put_submission(submission);
  }
  transaction.commit();
  return record;
}

std::optional<SubmissionRecord> Coordinator::submission(const std::string& key) {
  std::optional<SubmissionRecord> found = store_.submission(key);
  const bool forgotten = found && found->created <= options_.clock() - kKeyLifetime_s;
  return forgotten ? std::nullopt : found;
}

PipelineRecord Coordinator::pipeline(const std::string& id) {
  if (std::optional<PipelineRecord> found = store_.pipeline(id)) return *found;
  throw Error(ErrorCode::kNotFound,
              "pipeline \"" + id + "\": expected an id, found no such pipeline");
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
  job.ranks = wanted_ranks(job);
  end_alarms(job, /*of_ranks=*/false);
  if (!store_.health(job.id).is_null()) {
    TrainingHealth health = health_of(job);
    health.resume();
    store_.put_health(job.id, health.to_json());
  }
  apply(job, JobEvent::kResume, "resumed by request");
  transaction.commit();
  if (job.kind == "distill") pins_due_.insert(job.id);
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
  return store_.metrics(job.id, keys, max_points);
}

std::vector<LiveProgress> Coordinator::progress_since(std::uint64_t version) const {
  std::vector<LiveProgress> newer;
  for (const auto& [job, progress] : live_progress_) {
    if (progress.version > version) newer.push_back(progress);
  }
  std::sort(newer.begin(), newer.end(), [](const LiveProgress& a, const LiveProgress& b) {
    return a.version < b.version;
  });
  return newer;
}

std::vector<WorkerRecord> Coordinator::workers(const std::string& id) {
  const JobRecord job = find_job(id);
  return rank_board_.ranks(job.id, options_.clock());
}

ServiceFigures Coordinator::figures() {
  ServiceFigures figures;
  figures.jobs = store_.num_jobs_by_state();
  figures.slots = slots_;
  for (const JobRecord& job : store_.jobs_in({JobState::kStarting, JobState::kRunning, JobState::kStopping}, /*summaries=*/true)) {
    for (const WorkerRecord& rank : rank_board_.ranks(job.id, options_.clock())) {
      ++figures.ranks;
      if (!rank.trouble.empty()) ++figures.ranks_in_trouble;
    }
  }
  figures.attempts = store_.num_attempts();
  figures.checkpoints = store_.num_checkpoints();
  figures.images = images_seen_;
  for (const auto& [job, progress] : live_progress_) {
    const auto speed = progress.body.find("images_per_second");
    if (speed != progress.body.end() && speed->is_number()) figures.images_per_second += speed->get<double>();
  }
  figures.messages_taken = messages_taken_;
  figures.messages_refused = messages_refused_;
  for (const char* file : {"/coordinator.sqlite", "/coordinator.sqlite-wal"}) {
    std::error_code missing;
    const auto bytes = std::filesystem::file_size(options_.data + file, missing);
    if (!missing) figures.database_bytes += static_cast<std::int64_t>(bytes);
  }
  return figures;
}

std::vector<LeaseRecord> Coordinator::shards(const std::string& id) {
  const JobRecord job = find_job(id);
  const JobSpec spec = resolved_spec(job);
  const auto* options = std::get_if<GeneratePairsSpec>(&spec.options);
  if (options == nullptr) return {};
  return plan_with_leases(*options, job.ranks, store_.leases(job.id));
}

std::string Coordinator::run_folder(const std::string& id) {
  const std::optional<JobRecord> job = store_.job(id);
  const std::string chosen = job ? job->spec.value("output", "") : "";
  return chosen.empty() ? options_.data + "/jobs/" + id : chosen;
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
  if (auto* options = std::get_if<ExportSpec>(&spec.options)) select_checkpoint(job, *options);
  return spec;
}

TokenVerdict Coordinator::judge_token(const std::string& text) {
  return onestep::judge_token(store_, text, options_.clock());
}

NewToken Coordinator::add_token(Role role, const std::string& label, double lifetime_s) {
  const NewToken token = make_token(role, label, now(), lifetime_s > 0 ? now() + lifetime_s : 0);
  Store::Transaction transaction = store_.begin();
  store_.insert_token(token.record);
  transaction.commit();
  return token;
}

TokenRecord Coordinator::revoke_token(const std::string& id, bool keeps_an_admin) {
  const std::optional<TokenRecord> found = store_.token(id);
  if (!found) throw Error(ErrorCode::kNotFound, "token \"" + id + "\": expected the id of one, found none such");
  const auto opens_all = [this](const TokenRecord& token) {
    return token.role == to_string(Role::kAdmin) && token_state(token, now()) == std::string("valid");
  };
  const std::vector<TokenRecord> all = store_.tokens();
  if (keeps_an_admin && opens_all(*found) && std::count_if(all.begin(), all.end(), opens_all) == 1) {
    throw Error(ErrorCode::kConflict, "token " + id + " can't be revoked: it is the last valid one of role admin; make another one first");
  }
  Store::Transaction transaction = store_.begin();
  store_.revoke_token(id, now());
  transaction.commit();
  return store_.token(id).value();
}

// --- jobs and what they wait for ---

void Coordinator::apply(JobRecord& job, JobEvent event, const std::string& reason) {
  const std::optional<JobState> next = next_state(job.state, event);
  if (!next) {
    throw Error(ErrorCode::kInternal, "job " + job.id + ": event " + to_string(event) +
                                          " makes no sense while it is " + to_string(job.state));
  }
  log_info(job.id + ": " + to_string(job.state) + " -> " + to_string(*next) + ": " + reason,
           {.job = job.id, .attempt = job.attempts});
  job.state = *next;
  ++num_changes_;
  update_reason(job, reason);
}

void Coordinator::emit(const std::string& job, const char* type,
                       const nlohmann::ordered_json& body) {
  // Reasons quote what programs printed, which need not be valid UTF-8.
  store_.insert_event({.number = 0,
                       .job = job,
                       .type = type,
                       .time = options_.clock(),
                       .body = body.dump(-1, ' ', false,
                                         nlohmann::ordered_json::error_handler_t::replace)});
}

void Coordinator::emit_state(const JobRecord& job) {
  nlohmann::ordered_json summary = job_summary(job);
  summary.erase("progress");  // has events of its own
  summary["num_alarms"] = store_.num_holding_alarms(job.id);
  emit(job.id, "state", summary);
}

int Coordinator::wanted_ranks(const JobRecord& job) { return job.spec.value("ranks", job.ranks); }

void Coordinator::update_reason(JobRecord& job, const std::string& reason) {
  job.reason = reason;
  store_.update_job(job);
  emit_state(job);
}

void Coordinator::update_dependencies() {
  std::optional<Store::Transaction> transaction;
  settle_dependencies(store_.jobs_in({JobState::kWaiting, JobState::kBlocked}), [&] {
    if (!transaction) transaction.emplace(&store_);
  });
  if (transaction) transaction->commit();
}

void Coordinator::settle_dependencies(std::vector<JobRecord> jobs, const std::function<void()>& before_change) {
  // By number: whatever a job comes after has a smaller one, so one pass carries a change to the
  // end of the graph.
  for (JobRecord& job : jobs) {
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
    if (!blocked_by.empty()) {
      const std::string reason = "needs " + blocked_by + "; resume that one to go on";
      if (job.state == JobState::kBlocked && job.reason == reason) continue;
      before_change();
      if (job.state == JobState::kWaiting) {
        apply(job, JobEvent::kDependencyFailed, reason);
      } else {
        update_reason(job, reason);
      }
      continue;
    }
    if (waits_for.empty()) waits_for = unfinished_evaluation(job);
    // What the next turn would say of it, so that the turn has nothing to write.
    const bool behind = waits_for.empty() && job.parent.empty() && store_.has_queued_before(job.number);
    const std::string reason = !waits_for.empty() ? "waits for " + waits_for : behind ? kBehindOthers : "ready";
    if (job.state == JobState::kWaiting && job.reason == reason) continue;
    before_change();
    if (job.state == JobState::kBlocked) {
      apply(job, JobEvent::kDependencyResumed, "what it needs was resumed");
    }
    if (waits_for.empty()) {
      apply(job, JobEvent::kDependenciesMet, reason);
    } else {
      update_reason(job, reason);
    }
  }
}

void Coordinator::start_ready_jobs() {
  look_again_ = std::numeric_limits<double>::infinity();
  if (stopping_) return;
  std::vector<ReadyJob> ready;
  std::vector<RunningJob> running;
  std::map<std::string, JobRecord> queued;
  std::vector<JobRecord> jobs =
      store_.jobs_in({JobState::kQueued, JobState::kStarting, JobState::kRunning, JobState::kStopping}, /*summaries=*/true);
  for (JobRecord& job : jobs) {
    const bool evaluation = !job.parent.empty();
    if (is_active(job.state)) running.push_back({job.id, job.ranks, evaluation});
    if (job.state != JobState::kQueued) continue;
    if (job.not_before > options_.clock()) look_again_ = std::min(look_again_, job.not_before);
    ready.push_back({job.id, job.number, job.ranks, evaluation, job.not_before});
    queued.emplace(job.id, std::move(job));
  }
  if (ready.empty()) return;
  if (launcher_->capacity_varies()) look_again_ = std::min(look_again_, options_.clock() + kCapacityAge_s);
  const std::optional<Capacity> capacity = launcher_->capacity(options_.slots);
  if (!capacity) return;
  slots_ = capacity->slots;
  for (ReadyJob& job : ready) {
    if (capacity->oversubscribe || job.ranks <= capacity->slots) continue;
    job.fewer_ranks = fewer_ranks(parse_job_spec(find_job(job.id).spec, options_.data, "job " + job.id));
  }
  const std::vector<Decision> decisions =
      schedule(ready, running, capacity->slots, options_.clock(), capacity->oversubscribe);
  std::optional<Store::Transaction> transaction;
  for (const Decision& decision : decisions) {
    JobRecord& job = queued.at(decision.id);
    // A job that waits for its restart keeps the reason why it is restarted.
    if (decision.start || job.attempts != 0 || job.reason == decision.reason) continue;
    if (!transaction) transaction.emplace(&store_);
    update_reason(job, decision.reason);
  }
  if (transaction) transaction->commit();
  for (const Decision& decision : decisions) {
    if (decision.start) start(find_job(decision.id), decision);
  }
}

}  // namespace onestep
