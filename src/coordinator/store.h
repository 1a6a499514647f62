// The coordinator's memory: pipelines, jobs, attempts, checkpoints, metrics, alarms, leases in one SQLite
// file.
#pragma once

#include <nlohmann/json.hpp>

#include <cstdint>
#include <initializer_list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "coordinator/job_state.h"

namespace onestep {

// Times are Unix seconds; 0: not yet.

struct PipelineRecord {
  std::int64_t number = 0;
  std::string id;  // "<name>-p<number>"
  std::string name;
  double created = 0;
  std::vector<std::string> jobs;  // ids in the file's order, without the automatic evaluations
};

struct JobRecord {
  std::int64_t number = 0;  // ascending over the data folder
  std::string id;           // "<name>-<number>"
  std::string name;
  std::string kind;
  std::string pipeline;  // id
  std::string parent;    // the distill job that an automatic evaluation belongs to, else ""
  std::int64_t parent_iteration = 0;  // the checkpoint it evaluates
  int ranks = 1;  // of the current or last attempt: the spec's, or fewer where there were not so many slots
  std::vector<std::string> after;  // ids
  nlohmann::json spec;             // as submitted and resolved; "@name" still in it
  JobState state = JobState::kWaiting;
  std::string reason;             // why it is in that state, for people
  int attempts = 0;               // started so far; the current attempt's number
  int failures = 0;               // failed attempts in a row without progress
  double not_before = 0;          // restart delay
  bool cancel_requested = false;  // while stopping: ends as cancelled, not as interrupted
  double stop_requested = 0;      // when
  double created = 0;
  double started = 0;  // first attempt
  double ended = 0;
  std::string digest;       // of what it made, once succeeded
  nlohmann::json outcome;   // JobOutcome of the last ended attempt; null if none
  nlohmann::json progress;  // body of the last kProgress (may be a second behind); null if none
  int num_alarms = 0;       // that hold; counted when read
};

// Something wrong with a run, and since when.
struct AlarmRecord {
  std::int64_t number = 0;  // ascending over the data folder
  std::string job;
  std::string code;         // training_alarm_codes(), rank_alarm_codes()
  int rank = -1;            // -1: of no single rank
  int attempt = 0;
  std::string stage;
  std::int64_t iteration = 0;  // when it was raised
  std::int64_t images = 0;
  std::int64_t since_iteration = 0;  // when it began
  std::int64_t since_images = 0;
  double value = 0;  // NaN: it is no finite number
  double bound = 0;
  std::string reason;
  std::string hint;
  std::string action;  // "continue", "checkpoint", "stop": what was done
  double raised = 0;
  double ended = 0;  // 0: it holds
};

// Of one code over all jobs.
struct AlarmCount {
  std::string code;
  std::int64_t raised = 0;
  std::int64_t holding = 0;
};

struct AttemptRecord {
  std::string job;
  int number = 0;
  std::string
      state;  // "starting", "running", then "succeeded", "failed", "interrupted", "cancelled"
  std::string reason;
  std::int64_t pid = 0;         // of mpirun or the like; 0 until the launcher has answered, or for one found elsewhere
  std::int64_t start_time = 0;  // of that process, in clock ticks since boot
  double started = 0;
  double ended = 0;
  std::int64_t progress_mark = 0;  // progress of the job when the attempt started
  nlohmann::json outcome;          // JobOutcome told by kFinalState; null if not told
  std::string launcher = "local";  // Launcher::name
  std::string place = {};          // ProcessIdentity::place
};

struct CheckpointRecord {
  std::string job;
  std::string folder;  // absolute
  int attempt = 0;
  std::int64_t iteration = 0;
  std::int64_t images = 0;
  std::int64_t bytes = 0;
  std::string digest;
  double committed = 0;           // when the coordinator heard of it
  std::optional<double> frechet;  // by its automatic evaluation
  bool best = false;              // of the job, by the figure that its spec names: pinned
  std::optional<double> score = {};  // that figure
};

struct MetricPoint {
  std::string key;
  std::string stage;
  std::int64_t iteration = 0;
  std::int64_t images = 0;
  int attempt = 0;
  int rank = 0;
  double value = 0;
};

// A curve; several stages of one key follow each other in the order in which they were begun.
struct MetricSeries {
  std::string key;
  std::vector<MetricPoint> points;
};

// Something that happened to a job, as it is told to whoever watches.
struct EventRecord {
  std::int64_t number = 0;  // ascending over the data folder, never given twice
  std::string job;
  std::string type;  // "state", "metric", "checkpoint", "alarm"
  double time = 0;
  std::string body;  // a JSON object in one line
};

struct EventFilter {
  std::string job = {};       // id; "": any
  std::string pipeline = {};  // id; "": any
  std::int64_t after = 0;
  std::int64_t until = 0;          // the last one wanted; 0: all there are
  std::vector<std::string> types = {};  // empty: all
  std::int64_t limit = 0;          // 0: all
};

struct LeaseRecord {
  std::int64_t shard = 0;
  std::int64_t first = 0;
  std::int64_t count = 0;
  int rank = 0;
  int attempt = 0;     // that holds or finished it; 0: released
  std::string state;   // "released", "leased", "done"
  std::string sha256;  // once done
};

// What REST lets in. The token itself is nowhere: `hash` is its SHA-256.
struct TokenRecord {
  std::string id;
  std::string role;   // "read", "submit", "admin"
  std::string label;  // for people
  std::string hash;
  double created = 0;
  double expires = 0;  // 0: never
  double revoked = 0;  // 0: it is not
};

// A submission that carried a key, and what it was answered.
struct SubmissionRecord {
  std::string key;          // with whose it is
  std::string fingerprint;  // SHA-256 of the body
  std::string pipeline;     // id
  std::string answer;       // the body; "": by a version that stored it later, and ended before
  double created = 0;
};

struct JobFilter {
  std::optional<JobState> state;
  std::string pipeline;    // id; "": any
  std::string name;        // "": any
  std::string parent;      // id; "": any
  std::int64_t after = 0;  // number; only larger ones: the last one of the previous page
  std::int64_t limit = 0;  // 0: all
  bool summaries = false;  // for lists: spec and after are left out
};

// Move-only; one thread. Every change is inside a transaction: `auto t = store.begin(); ...;
// t.commit();`, durable when commit() returns (WAL, synchronous=FULL). Errors of all methods: kIo
// with SQLite's message; kCorrupt for a file that is no database of this version.
class Store {
 public:
  static constexpr int kSchemaVersion = 6;

  // Creates or opens. Errors: kMismatch for a newer schema version; kCorrupt; kIo.
  // An older version is brought to this one, in one transaction a version.
  explicit Store(const std::string& path);
  // From now on a commit is one sync of the log, and never more: what it holds is copied into the database file by a thread. For the
  // process that lives long; others copy as they commit.
  void copy_log_beside_the_work();
  // A copy of the database at one moment, whole and synced, while others read and write it. `to` must not exist.
  // Errors: kIo, kCorrupt.
  void copy_to(const std::string& to);
  // Of the file as it is; 0 for one that is empty or not there. Errors: kIo, kCorrupt.
  static std::int64_t schema_version(const std::string& path);
  Store(Store&&) noexcept;
  Store& operator=(Store&&) noexcept;
  ~Store();

  // Rolls back unless commit() was called. Not nested.
  class Transaction {
   public:
    explicit Transaction(Store* store);
    Transaction(const Transaction&) = delete;
    Transaction& operator=(const Transaction&) = delete;
    ~Transaction();
    void commit();

   private:
    Store* store_;
  };
  [[nodiscard]] Transaction begin() { return Transaction(this); }

  // A part of a transaction that can be undone alone: undone unless release() was called. Not nested.
  class Savepoint {
   public:
    explicit Savepoint(Store* store);
    Savepoint(const Savepoint&) = delete;
    Savepoint& operator=(const Savepoint&) = delete;
    ~Savepoint();
    void release();

   private:
    Store* store_;
  };

  // The next numbers, never given twice (call inside the inserting transaction).
  std::int64_t next_pipeline_number();
  std::int64_t next_job_number();

  void insert_pipeline(const PipelineRecord& pipeline);  // the jobs come with insert_job
  std::optional<PipelineRecord> pipeline(const std::string& id);

  void insert_job(const JobRecord& job);
  void update_job(const JobRecord& job);  // all but number, id, name, spec, dependencies
  std::optional<JobRecord> job(const std::string& id);
  std::optional<JobRecord> job_summary(const std::string& id);  // without spec and after
  std::optional<JobRecord> newest_job_named(const std::string& name);
  std::vector<JobRecord> jobs(const JobFilter& filter);  // by number, ascending
  // By number; `summaries` as in JobFilter.
  std::vector<JobRecord> jobs_in(std::initializer_list<JobState> states, bool summaries = false);
  std::vector<JobRecord> unfinished_jobs();              // neither terminal nor interrupted

  std::map<std::string, std::int64_t> num_jobs_by_state();
  std::int64_t num_attempts();
  std::int64_t num_checkpoints();

  void insert_attempt(const AttemptRecord& attempt);
  void update_attempt(const AttemptRecord& attempt);
  std::optional<AttemptRecord> attempt(const std::string& job, int number);
  std::vector<AttemptRecord> attempts(const std::string& job);

  // False: that folder of that job is known already, nothing changed.
  bool insert_checkpoint(const CheckpointRecord& checkpoint);
  void update_checkpoint(const CheckpointRecord& checkpoint);         // frechet, score, best
  std::vector<CheckpointRecord> checkpoints(const std::string& job);  // by iteration, then attempt

  // A point of the same key, stage and iteration is replaced: a resumed attempt overwrites what it
  // repeats.
  void insert_metrics(const std::string& job, const std::vector<MetricPoint>& points);
  // Each key's points, at most max_points of them (0: all): the lowest and the highest of each
  // stretch are kept. Reads about 16 rows for each point kept, however long the curve is.
  // keys empty: all.
  std::vector<MetricSeries> metrics(const std::string& job, const std::vector<std::string>& keys,
                                    std::int64_t max_points);

  // Returns the event's number.
  std::int64_t insert_event(const EventRecord& event);
  std::vector<EventRecord> events(const EventFilter& filter);  // by number
  std::int64_t last_event();                                   // 0: none yet

  // True the first time for these four; false: seen before, nothing changed.
  bool remember_message(const std::string& job, int attempt, int rank, std::uint64_t sequence);

  // Returns the alarm's number.
  std::int64_t insert_alarm(const AlarmRecord& alarm);
  void end_alarm(std::int64_t number, double ended);
  std::vector<AlarmRecord> alarms(const std::string& job);  // by number
  std::vector<AlarmRecord> holding_alarms();                // of all jobs, by number
  int num_holding_alarms(const std::string& job);
  std::vector<AlarmCount> alarm_counts();  // by code
  // What the judgement of a job's figures goes on from; null: nothing yet.
  void put_health(const std::string& job, const nlohmann::json& state);
  nlohmann::json health(const std::string& job);

  void put_lease(const std::string& job, const LeaseRecord& lease);
  std::vector<LeaseRecord> leases(const std::string& job);   // by shard
  void release_leases(const std::string& job, int attempt);  // those not done

  void insert_token(const TokenRecord& token);
  // False: unknown, or revoked before.
  bool revoke_token(const std::string& id, double now);
  std::optional<TokenRecord> token(const std::string& id);
  std::vector<TokenRecord> tokens();  // by age
  // SHA-256 of what the ranks of an attempt say in their hello; "": it was launched without.
  void put_attempt_token(const std::string& job, int attempt, const std::string& hash);
  std::string attempt_token(const std::string& job, int attempt);

  void put_submission(const SubmissionRecord& submission);  // instead of an older one of that key
  std::optional<SubmissionRecord> submission(const std::string& key);
  void forget_submissions(double before);  // those created earlier

  // Does a job with a smaller number wait for slots: queued, and no automatic evaluation?
  bool has_queued_before(std::int64_t number);
  std::vector<PipelineRecord> pipelines(std::int64_t after, std::int64_t limit);  // by number, without their jobs
  std::int64_t num_unfinished_jobs();                                             // as unfinished_jobs()

  struct Database;  // store_database.h: for the parts of the store alone

 private:
  std::unique_ptr<Database> database_;
};

}  // namespace onestep
