// The owner of all state: takes what REST, telemetry and launchers say, decides, writes it down,
// then acts.
#pragma once

#include <nlohmann/json.hpp>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "common/error.h"
#include "common/pipeline.h"
#include "common/protocol.h"
#include "common/run_folder.h"
#include "coordinator/access_tokens.h"
#include "coordinator/beneath.h"
#include "coordinator/data_lock.h"
#include "coordinator/launcher/launcher.h"
#include "coordinator/rank_board.h"
#include "coordinator/rank_watchdog.h"
#include "coordinator/scheduler.h"
#include "coordinator/store.h"
#include "coordinator/training_health.h"

namespace onestep {

struct CoordinatorOptions {
  std::string data;               // absolute; made if missing
  int slots = 1;  // ranks that run at a time, 0: as many as the launcher has room for
  std::function<double()> clock;  // Unix seconds
  // Ranks prove by a secret in their run folder that they are the attempt's (worker_token_file).
  bool worker_tokens = false;
  // Where the files that a job names must lie when it is launched; REST looks at the same when it is submitted.
  FileRoots roots = FileRoots({"/"});
};

// What a rank says first.
struct Hello {
  std::string job;
  int attempt = 0;
  int rank = 0;
  int ranks = 0;
  std::int64_t pid = 0;
  std::string host;
  std::string commit;
  std::string token = {};  // the attempt's; "": none
};
// Errors: kCorrupt naming the field.
Hello hello_from_json(const nlohmann::json& body);

struct Refusal {
  ErrorCode code = ErrorCode::kInternal;
  std::string reason;
};

struct HelloAnswer {
  std::optional<Refusal> refusal;  // else it is welcome
  std::vector<Message> commands;   // to be sent after kWelcome
};

struct MessageAnswer {
  std::optional<Refusal> refusal;            // close the connection; nothing was stored
  std::optional<std::uint64_t> acknowledge;  // committed to the database
  std::vector<Message> replies;
};

// A rank of an attempt: what a telemetry connection belongs to once its hello was welcome.
struct RankId {
  std::string job;
  int attempt = 0;
  int rank = 0;
  auto operator<=>(const RankId&) const = default;
};

struct ReceivedMessage {
  RankId from;
  Message message;
};

// The newest progress of a job whose attempt runs.
struct LiveProgress {
  std::string job;
  std::string pipeline;
  std::uint64_t version = 0;  // ascending over all jobs: larger is newer
  nlohmann::json body;
};

// What a monitoring system is told.
struct ServiceFigures {
  std::map<std::string, std::int64_t> jobs;  // by state; those there are
  int slots = 0;
  int ranks = 0;             // of running attempts, that said hello
  int ranks_in_trouble = 0;
  std::int64_t attempts = 0;     // ever started
  std::int64_t checkpoints = 0;  // ever committed
  double images = 0;             // reported since this process started
  double images_per_second = 0;  // of all running jobs
  std::int64_t messages_taken = 0, messages_refused = 0;  // of ranks, since this process started
  std::int64_t database_bytes = 0;
};

// All methods are called from the one thread that runs the io_context. Every change is committed
// before the method returns. A job's `id` may also be a bare name: the newest job of that name.
// Errors: kNotFound for an unknown job or pipeline.
class Coordinator {
 public:
  // Takes the folder's lock, opens its database and reconciles: attempts that still run are
  // adopted, dead ones ended. Errors: kConflict when another coordinator has the folder; those of
  // Store.
  Coordinator(CoordinatorOptions options, std::unique_ptr<Launcher> launcher);

  // Sends a command to a rank of an attempt, rank -1: to all that are connected. Not connected:
  // dropped (a rank that says hello later gets what is still due).
  using Sender = std::function<void(const RankId& to, const Message& command)>;
  void set_sender(Sender sender) { sender_ = std::move(sender); }

  // --- REST ---
  // One transaction, one sync of the disk. With a `key`, the submission is remembered with it and with its answer, which is made of
  // what the transaction holds. Errors: kConflict for an output folder in use.
  using AnswerOf = std::function<std::string(const PipelineRecord&)>;
  PipelineRecord submit(const Pipeline& pipeline, const std::optional<SubmissionRecord>& key = std::nullopt, const AnswerOf& answer_of = {});
  // What a submission of that key was answered; those of more than a week ago are forgotten.
  std::optional<SubmissionRecord> submission(const std::string& key);
  std::vector<PipelineRecord> pipelines(std::int64_t after, std::int64_t limit) { return store_.pipelines(after, limit); }
  std::int64_t num_unfinished_jobs() { return store_.num_unfinished_jobs(); }
  PipelineRecord pipeline(const std::string& id);
  std::vector<JobRecord> jobs(const JobFilter& filter);
  JobRecord job(const std::string& id);
  std::vector<AttemptRecord> attempts(const std::string& id);
  // Repeatable. Errors: kConflict when it has succeeded or failed.
  JobRecord cancel(const std::string& id);
  // From failed, cancelled or interrupted. Errors: kConflict otherwise.
  JobRecord resume(const std::string& id);
  // Errors: kConflict unless it runs and is a training job.
  JobRecord checkpoint_now(const std::string& id);
  std::vector<CheckpointRecord> checkpoints(const std::string& id);
  // Those of Store::metrics, up to what was reported just now.
  std::vector<MetricSeries> metrics(const std::string& id, const std::vector<std::string>& keys,
                                    std::int64_t max_points);
  // Those in the database: what is told is on disk. Filters take real ids.
  std::vector<EventRecord> events(const EventFilter& filter) { return store_.events(filter); }
  std::int64_t last_event() { return store_.last_event(); }
  // Progress newer than `version`, oldest first; may be lost with the coordinator.
  [[nodiscard]] std::vector<LiveProgress> progress_since(std::uint64_t version) const;
  // Of the attempt that runs, by rank; empty before its first rank has said hello.
  std::vector<WorkerRecord> workers(const std::string& id);
  // Those that were ever raised, oldest first.
  std::vector<AlarmRecord> alarms(const std::string& id);
  std::vector<AlarmCount> alarm_counts() { return store_.alarm_counts(); }
  ServiceFigures figures();
  std::vector<LeaseRecord> shards(const std::string& id);
  // The spec's "output", or a folder of the job's own in the data folder; takes a real id.
  [[nodiscard]] std::string run_folder(const std::string& id);
  // The spec as the worker gets it: "@name" replaced, output set.
  nlohmann::json worker_spec(const std::string& id);

  // Why a token opens nothing, or what it opens.
  TokenVerdict judge_token(const std::string& text);
  std::vector<TokenRecord> tokens() { return store_.tokens(); }  // by age
  // lifetime_s 0: for ever.
  NewToken add_token(Role role, const std::string& label, double lifetime_s);
  // Repeatable. Errors: kNotFound; kConflict for the last valid one of role admin, if such a one is to be kept.
  TokenRecord revoke_token(const std::string& id, bool keeps_an_admin);
  [[nodiscard]] double now() const { return options_.clock(); }

  // --- telemetry ---
  HelloAnswer hello(const Hello& hello);
  // An answer each. Idempotent by (job, attempt, rank, sequence). What must be acknowledged is
  // committed in one transaction: one sync of the disk, however many come at once. Errors: none;
  // what is wrong with a message is its refusal, and changes nothing of the others.
  std::vector<MessageAnswer> on_messages(const std::vector<ReceivedMessage>& messages);

  // --- time ---
  // Looks after launched processes, unblocks, schedules, starts. Every 200 ms or so, and after
  // events if wanted. Errors: the first that the system's refusal (a full disk) led to; what could
  // not be done is tried at the next tick.
  void tick();
  // Asks every running attempt to save and end; those jobs become interrupted. Nothing new is
  // started afterwards.
  void stop_all(const std::string& reason);
  // Goes on with the jobs that were stopped and not cancelled; how many.
  int resume_stopped();
  // No attempt is alive.
  bool idle();

 private:
  JobRecord find_job(const std::string& id);
  // Tells whoever watches; inside the caller's transaction, so that it is told if and only if it is so.
  void emit(const std::string& job, const char* type, const nlohmann::ordered_json& body);
  void emit_state(const JobRecord& job);
  // Writes down why the job is in its state, which stays.
  void update_reason(JobRecord& job, const std::string& reason);
  // Applies the event, with its reason, to the record and to the database (inside the caller's
  // transaction).
  void apply(JobRecord& job, JobEvent event, const std::string& reason);

  // The distill job of this coordinator that an export job takes its model from; nullopt: another folder.
  std::optional<JobRecord> source_of_export(const JobRecord& job, const std::string& model);
  // What an export's "selection" waits for: its source's evaluations once that has ended; "" if nothing.
  std::string unfinished_evaluation(const JobRecord& job);
  void select_checkpoint(const JobRecord& job, ExportSpec& spec);

  // Jobs and what they wait for.
  void update_dependencies();
  // The same for these, waiting or blocked and by number, inside a transaction, which `before_change` may begin.
  void settle_dependencies(std::vector<JobRecord> jobs, const std::function<void()>& before_change);
  void start_ready_jobs();
  void start(JobRecord job, const Decision& decision);
  static int wanted_ranks(const JobRecord& job);  // the spec's
  void require_roots(const JobRecord& job);
  void write_run_folder(const JobRecord& job);
  void write_worker_token(const JobRecord& job, int attempt);

  // Attempts.
  struct AttemptEnd {
    bool connected = false;      // its rank 0 had said hello
    bool machine_fault = false;  // ProcessEnd's
  };
  void reconcile();
  std::optional<Error>
  watch_attempts();  // the first trouble met; it keeps no other job from going on
  void watch_attempt(const JobRecord& job);
  void tell_whereabouts(const JobRecord& job, const ProcessIdentity& process);
  void enforce_stop(const JobRecord& job, const AttemptRecord& attempt);
  void end_attempt(JobRecord job, AttemptRecord attempt, const ProcessEnd& end);
  JobOutcome outcome_of(const JobRecord& job, const AttemptRecord& attempt, const ProcessEnd& end);
  void decide_end(JobRecord& job, AttemptRecord& attempt, const JobOutcome& outcome, bool machine_fault);
  void decide_restart(JobRecord& job, const AttemptRecord& attempt, const JobOutcome& outcome, const AttemptEnd& end);
  void request_stop(JobRecord& job, bool cancel, const std::string& reason);
  // The same inside the caller's transaction; the ranks are told at the next tick.
  void note_stop(JobRecord& job, bool cancel, const std::string& reason);
  [[nodiscard]] LaunchRequest launch_request(const JobRecord& job, int attempt);
  [[nodiscard]] JobSpec resolved_spec(const JobRecord& job);

  // Checkpoints and their evaluations.
  void checkpoint_committed(const JobRecord& job, const CheckpointRecord& checkpoint);
  void schedule_evaluation(const JobRecord& job, const CheckpointRecord& checkpoint);
  void trim_evaluations(const std::string& parent, std::size_t keep, const std::string& reason);
  void record_evaluation(const JobRecord& evaluation);
  void update_pins(const std::string& job);

  // Alarms; inside the caller's transaction.
  TrainingHealth health_of(const JobRecord& job);  // as far as it was judged
  void judge_reports();
  void judge_evaluation(const JobRecord& parent, const CheckpointRecord& checkpoint, const nlohmann::json& result);
  void take_findings(JobRecord job, int attempt, const std::vector<HealthFinding>& findings);
  void raise(AlarmRecord alarm);
  void end_alarm(AlarmRecord alarm);
  void end_alarms(const JobRecord& job, bool of_ranks);
  void watch_ranks(const JobRecord& job, const AttemptRecord& attempt);

  // Telemetry.
  std::optional<Refusal> fence(const std::string& job_id, int attempt, int rank,
                               std::optional<JobRecord>& job);
  MessageAnswer take_message(const RankId& from, const Message& message);
  void store_fact(const RankId& from, const Message& message);
  void take_final_state(const JobRecord& job, const nlohmann::json& body);
  void take_progress(const RankId& from, const nlohmann::json& body);
  std::vector<LeaseRecord> grant(const JobRecord& job, const RankId& to);
  void flush_progress();
  void store_metrics();
  void send_to_all(const JobRecord& job, const Message& command);

  CoordinatorOptions options_;
  DataLock lock_;
  Store store_;
  std::unique_ptr<Launcher> launcher_;
  Sender sender_;
  bool stopping_ = false;
  // Progress that is not in the database yet: written once a second, so that a flood costs no fsync
  // each.
  std::map<std::string, nlohmann::json> latest_progress_;
  std::vector<std::pair<std::string, MetricPoint>> pending_metrics_;
  struct PendingReport {
    std::string job;
    int attempt = 0;
    HealthReport report;
  };
  std::vector<PendingReport> pending_reports_;  // not judged yet
  std::map<std::string, LiveProgress> live_progress_;  // by job, while an attempt of it runs
  std::uint64_t progress_version_ = 0;
  double images_seen_ = 0;
  std::int64_t messages_taken_ = 0, messages_refused_ = 0;
  RankBoard rank_board_;
  RankWatchdog watchdog_;
  double started_ = 0;                       // this process
  int slots_ = 0;                            // when jobs were last started
  std::map<std::string, double> looked_at_;  // when the watchdog last looked at a job's ranks
  std::map<std::string, std::vector<AlarmRecord>> rank_alarms_;  // by job: those of the watchdog that hold
  std::set<std::string> told_to_stop_;       // jobs that stop: their ranks were told by this process
  std::set<std::string> checkpoints_due_;    // jobs whose alarm asks for one
  // Changes of jobs' states: how many there were, and as of which of them the scheduler has decided; when it is to look again without one.
  std::uint64_t num_changes_ = 1, settled_changes_ = 0;
  double look_again_ = 0;
  double last_flush_ = 0;
  double last_forgotten_ = 0;  // submissions whose keys are too old
  // When the final state of a job's attempt came and when its mpirun was asked to end: what is left
  // of it is then overdue.
  std::map<std::string, double> final_since_;
  std::map<std::string, double> terminated_at_;
  std::map<std::string, double> pending_until_;  // by job: when a batch system's queue still had its attempt
  std::set<std::string> pins_due_;  // jobs whose pinned checkpoints may have changed
};

}  // namespace onestep
