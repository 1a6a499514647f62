#include "coordinator/store.h"

#include <algorithm>

#include "coordinator/store_database.h"
#include "coordinator/store_schema.h"

namespace onestep {
namespace {

using nlohmann::json;

void execute(sqlite3* database, const char* sql) {
  const int code = sqlite3_exec(database, sql, nullptr, nullptr, nullptr);
  if (code != SQLITE_OK) throw_sqlite(database, code, std::string("\"") + sql + "\"");
}

void bind_json(Statement& statement, const json& value) {
  if (value.is_null()) {
    statement.null();
  } else {
    statement << value.dump();
  }
}

json read_json(Statement& row) {
  std::string text;
  row >> text;
  return text.empty() ? json() : json::parse(text);
}

void bind_optional(Statement& statement, const std::optional<double>& value) {
  if (value) {
    statement << *value;
  } else {
    statement.null();
  }
}

std::optional<double> read_optional(Statement& row) {
  const bool is_null = row.next_is_null();
  double value = 0;
  row >> value;
  return is_null ? std::nullopt : std::optional(value);
}

constexpr const char* kJobColumns =
    "number, id, name, kind, pipeline, parent, parent_iteration, ranks, spec, state, reason, "
    "attempts, failures, not_before, cancel_requested, stop_requested, created, started, ended, "
    "digest, outcome, progress, "
    "(SELECT COUNT(*) FROM alarms WHERE alarms.job = jobs.id AND alarms.ended = 0)";
// The same without the spec, which is by far the longest and takes longest to read.
constexpr const char* kSummaryColumns =
    "number, id, name, kind, pipeline, parent, parent_iteration, ranks, NULL, state, reason, "
    "attempts, failures, not_before, cancel_requested, stop_requested, created, started, ended, "
    "digest, outcome, progress, "
    "(SELECT COUNT(*) FROM alarms WHERE alarms.job = jobs.id AND alarms.ended = 0)";

JobRecord read_job(Statement& row) {
  JobRecord job;
  std::string state;
  row >> job.number >> job.id >> job.name >> job.kind >> job.pipeline >> job.parent >>
      job.parent_iteration >> job.ranks;
  job.spec = read_json(row);
  row >> state >> job.reason >> job.attempts >> job.failures >> job.not_before >>
      job.cancel_requested >> job.stop_requested >> job.created >> job.started >> job.ended >>
      job.digest;
  job.outcome = read_json(row);
  job.progress = read_json(row);
  row >> job.num_alarms;
  const std::optional<JobState> known = job_state_from_string(state);
  if (!known) {
    throw Error(ErrorCode::kCorrupt,
                "coordinator database: job " + job.id + " has the unknown state \"" + state + "\"");
  }
  job.state = *known;
  return job;
}

AttemptRecord read_attempt(Statement& row) {
  AttemptRecord attempt;
  row >> attempt.job >> attempt.number >> attempt.state >> attempt.reason >> attempt.pid >>
      attempt.start_time >> attempt.started >> attempt.ended >> attempt.progress_mark;
  attempt.outcome = read_json(row);
  row >> attempt.launcher >> attempt.place;
  return attempt;
}

std::vector<JobRecord> read_rows(Statement& statement) {
  std::vector<JobRecord> jobs;
  while (statement.step()) jobs.push_back(read_job(statement));
  return jobs;
}

std::vector<JobRecord> read_jobs(Store::Database& database, Statement& statement) {
  std::vector<JobRecord> jobs = read_rows(statement);
  for (JobRecord& job : jobs) {
    Statement& needs =
        database.statement("SELECT needs FROM dependencies WHERE job = ? ORDER BY position");
    needs << job.id;
    while (needs.step()) needs >> job.after.emplace_back();
  }
  return jobs;
}

}  // namespace

Store::Store(const std::string& path) : database_(std::make_unique<Database>()) {
  const int code = sqlite3_open_v2(path.c_str(), &database_->handle,
                                   SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, nullptr);
  if (code != SQLITE_OK) throw_sqlite(database_->handle, code, path + ": opening the database");
  sqlite3* handle = database_->handle;
  try {
    sqlite3_busy_timeout(handle, 2000);
    std::int64_t version = 0;
    {
      Statement statement(handle, "PRAGMA user_version");
      if (statement.step()) statement >> version;
    }
    if (version > kSchemaVersion) {
      throw Error(ErrorCode::kMismatch, path + ": schema version; expected at most " +
                                            std::to_string(kSchemaVersion) + ", found " +
                                            std::to_string(version) +
                                            "; the folder was used by a newer onestep-coordinator");
    }
    execute(handle, "PRAGMA journal_mode = WAL");
    execute(handle, "PRAGMA synchronous = FULL");
    execute(handle, "PRAGMA foreign_keys = ON");
    const auto steps = schema_steps();
    for (auto step = static_cast<std::size_t>(version); step < steps.size(); ++step) {
      Transaction migration = begin();
      execute(handle, steps[step]);
      execute(handle, ("PRAGMA user_version = " + std::to_string(step + 1)).c_str());
      migration.commit();
    }
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kMismatch) throw;
    throw Error(error.code(), path + ": " + error.what());
  }
}

void Store::copy_log_beside_the_work() {
  if (database_->log_copier) return;
  const char* path = sqlite3_db_filename(database_->handle, "main");
  database_->log_copier = std::make_unique<LogCopier>(database_->handle, path);
}

Store::Store(Store&&) noexcept = default;
Store& Store::operator=(Store&&) noexcept = default;
Store::~Store() = default;

Store::Transaction::Transaction(Store* store) : store_(store) {
  execute(store_->database_->handle, "BEGIN IMMEDIATE");
}

Store::Transaction::~Transaction() {
  if (store_ != nullptr) {
    sqlite3_exec(store_->database_->handle, "ROLLBACK", nullptr, nullptr, nullptr);
  }
}

void Store::Transaction::commit() {
  execute(store_->database_->handle, "COMMIT");
  store_ = nullptr;
}

Store::Savepoint::Savepoint(Store* store) : store_(store) {
  execute(store_->database_->handle, "SAVEPOINT part");
}

Store::Savepoint::~Savepoint() {
  if (store_ == nullptr) return;
  sqlite3_exec(store_->database_->handle, "ROLLBACK TO part; RELEASE part", nullptr, nullptr, nullptr);
}

void Store::Savepoint::release() {
  execute(store_->database_->handle, "RELEASE part");
  store_ = nullptr;
}

std::int64_t Store::next_pipeline_number() { return database_->next("pipelines"); }
std::int64_t Store::next_job_number() { return database_->next("jobs"); }

void Store::insert_pipeline(const PipelineRecord& pipeline) {
  Statement& statement = database_->statement("INSERT INTO pipelines VALUES (?, ?, ?, ?)");
  (statement << pipeline.number << pipeline.id << pipeline.name << pipeline.created).run();
}

std::optional<PipelineRecord> Store::pipeline(const std::string& id) {
  Statement statement(database_->handle,
                      "SELECT number, id, name, created FROM pipelines WHERE id = ?");
  statement << id;
  if (!statement.step()) return std::nullopt;
  PipelineRecord pipeline;
  statement >> pipeline.number >> pipeline.id >> pipeline.name >> pipeline.created;
  pipeline.jobs = database_->texts(
      "SELECT id FROM jobs WHERE pipeline = ? AND parent IS NULL ORDER BY number", id);
  return pipeline;
}

void Store::insert_job(const JobRecord& job) {
  Statement& statement = database_->statement(
      "INSERT INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
  statement << job.number << job.id << job.name << job.kind << job.pipeline;
  if (job.parent.empty()) {
    statement.null();
  } else {
    statement << job.parent;
  }
  statement << job.parent_iteration << job.ranks << job.spec.dump() << to_string(job.state)
            << job.reason << job.attempts << job.failures << job.not_before << job.cancel_requested
            << job.stop_requested << job.created << job.started << job.ended << job.digest;
  bind_json(statement, job.outcome);
  bind_json(statement, job.progress);
  statement.run();
  for (std::size_t i = 0; i < job.after.size(); ++i) {
    Statement& dependency = database_->statement("INSERT INTO dependencies VALUES (?, ?, ?)");
    (dependency << job.id << static_cast<std::int64_t>(i) << job.after[i]).run();
  }
}

void Store::update_job(const JobRecord& job) {
  Statement& statement = database_->statement(
      "UPDATE jobs SET state = ?, reason = ?, attempts = ?, failures = ?, not_before = ?, cancel_requested = ?, stop_requested = ?, "
      "started = ?, ended = ?, digest = ?, outcome = ?, progress = ?, ranks = ? WHERE id = ?");
  statement << to_string(job.state) << job.reason << job.attempts << job.failures << job.not_before
            << job.cancel_requested << job.stop_requested << job.started << job.ended << job.digest;
  bind_json(statement, job.outcome);
  bind_json(statement, job.progress);
  (statement << job.ranks << job.id).run();
}

std::optional<JobRecord> Store::job(const std::string& id) {
  const std::string sql = std::string("SELECT ") + kJobColumns + " FROM jobs WHERE id = ?";
  Statement& statement = database_->statement(sql.c_str());
  statement << id;
  std::vector<JobRecord> found = read_jobs(*database_, statement);
  if (found.empty()) return std::nullopt;
  return std::move(found.front());
}

std::optional<JobRecord> Store::job_summary(const std::string& id) {
  const std::string sql = std::string("SELECT ") + kSummaryColumns + " FROM jobs WHERE id = ?";
  Statement& statement = database_->statement(sql.c_str());
  statement << id;
  std::vector<JobRecord> found = read_rows(statement);
  if (found.empty()) return std::nullopt;
  return std::move(found.front());
}

std::optional<JobRecord> Store::newest_job_named(const std::string& name) {
  const std::string sql = std::string("SELECT ") + kJobColumns +
                          " FROM jobs WHERE name = ? ORDER BY number DESC LIMIT 1";
  Statement& statement = database_->statement(sql.c_str());
  statement << name;
  std::vector<JobRecord> found = read_jobs(*database_, statement);
  if (found.empty()) return std::nullopt;
  return std::move(found.front());
}

std::vector<JobRecord> Store::jobs(const JobFilter& filter) {
  std::string sql = std::string("SELECT ") + (filter.summaries ? kSummaryColumns : kJobColumns) +
                    " FROM jobs WHERE number > ?";
  if (filter.state) sql += " AND state = ?";
  if (!filter.pipeline.empty()) sql += " AND pipeline = ?";
  if (!filter.name.empty()) sql += " AND name = ?";
  if (!filter.parent.empty()) sql += " AND parent = ?";
  sql += " ORDER BY number";
  if (filter.limit > 0) sql += " LIMIT ?";
  Statement& statement = database_->statement(sql.c_str());
  statement << filter.after;
  if (filter.state) statement << to_string(*filter.state);
  if (!filter.pipeline.empty()) statement << filter.pipeline;
  if (!filter.name.empty()) statement << filter.name;
  if (!filter.parent.empty()) statement << filter.parent;
  if (filter.limit > 0) statement << filter.limit;
  return filter.summaries ? read_rows(statement) : read_jobs(*database_, statement);
}

std::vector<JobRecord> Store::jobs_in(std::initializer_list<JobState> states, bool summaries) {
  std::vector<JobRecord> found;
  for (const JobState state : states) {
    JobFilter filter;
    filter.state = state;
    filter.summaries = summaries;
    for (JobRecord& job : jobs(filter)) found.push_back(std::move(job));
  }
  std::sort(found.begin(), found.end(),
            [](const JobRecord& a, const JobRecord& b) { return a.number < b.number; });
  return found;
}

std::vector<JobRecord> Store::unfinished_jobs() {
  const std::string sql =
      std::string("SELECT ") + kJobColumns +
      " FROM jobs WHERE state IN " + kUnfinishedStates + " ORDER BY number";
  Statement& statement = database_->statement(sql.c_str());
  return read_jobs(*database_, statement);
}

bool Store::has_queued_before(std::int64_t number) {
  Statement& row = database_->statement("SELECT EXISTS(SELECT 1 FROM jobs WHERE state = 'queued' AND parent IS NULL AND number < ?)");
  row << number;
  bool found = false;
  while (row.step()) row >> found;
  return found;
}

std::map<std::string, std::int64_t> Store::num_jobs_by_state() {
  Statement& rows = database_->statement("SELECT state, COUNT(*) FROM jobs GROUP BY state");
  std::map<std::string, std::int64_t> counts;
  while (rows.step()) {
    std::string state;
    rows >> state;
    rows >> counts[state];
  }
  return counts;
}

std::int64_t Store::num_attempts() { return database_->count("SELECT COUNT(*) FROM attempts"); }
std::int64_t Store::num_checkpoints() { return database_->count("SELECT COUNT(*) FROM checkpoints"); }

void Store::insert_attempt(const AttemptRecord& attempt) {
  Statement statement(database_->handle,
                      "INSERT INTO attempts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
  statement << attempt.job << attempt.number << attempt.state << attempt.reason << attempt.pid
            << attempt.start_time << attempt.started << attempt.ended << attempt.progress_mark;
  bind_json(statement, attempt.outcome);
  (statement << attempt.launcher << attempt.place).run();
}

void Store::update_attempt(const AttemptRecord& attempt) {
  Statement statement(database_->handle,
                      "UPDATE attempts SET state = ?, reason = ?, pid = ?, start_time = ?, "
                      "started = ?, ended = ?, progress_mark = ?, outcome = ?, launcher = ?, place = ? "
                      "WHERE job = ? AND number = ?");
  statement << attempt.state << attempt.reason << attempt.pid << attempt.start_time
            << attempt.started << attempt.ended << attempt.progress_mark;
  bind_json(statement, attempt.outcome);
  (statement << attempt.launcher << attempt.place << attempt.job << attempt.number).run();
}

std::optional<AttemptRecord> Store::attempt(const std::string& job, int number) {
  Statement statement(database_->handle, "SELECT * FROM attempts WHERE job = ? AND number = ?");
  statement << job << number;
  if (!statement.step()) return std::nullopt;
  return read_attempt(statement);
}

std::vector<AttemptRecord> Store::attempts(const std::string& job) {
  Statement statement(database_->handle, "SELECT * FROM attempts WHERE job = ? ORDER BY number");
  statement << job;
  std::vector<AttemptRecord> attempts;
  while (statement.step()) attempts.push_back(read_attempt(statement));
  return attempts;
}

bool Store::insert_checkpoint(const CheckpointRecord& checkpoint) {
  Statement statement(database_->handle,
                      "INSERT OR IGNORE INTO checkpoints VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
  statement << checkpoint.job << checkpoint.folder << checkpoint.attempt << checkpoint.iteration
            << checkpoint.images << checkpoint.bytes << checkpoint.digest << checkpoint.committed;
  bind_optional(statement, checkpoint.frechet);
  statement << checkpoint.best;
  bind_optional(statement, checkpoint.score);
  statement.run();
  return sqlite3_changes(database_->handle) > 0;
}

void Store::update_checkpoint(const CheckpointRecord& checkpoint) {
  Statement statement(database_->handle,
                      "UPDATE checkpoints SET frechet = ?, score = ?, best = ? WHERE job = ? AND folder = ?");
  bind_optional(statement, checkpoint.frechet);
  bind_optional(statement, checkpoint.score);
  (statement << checkpoint.best << checkpoint.job << checkpoint.folder).run();
}

std::vector<CheckpointRecord> Store::checkpoints(const std::string& job) {
  Statement statement(database_->handle,
                      "SELECT job, folder, attempt, iteration, images, bytes, digest, committed, "
                      "best, frechet, score FROM checkpoints WHERE job = ? ORDER BY iteration, attempt");
  statement << job;
  std::vector<CheckpointRecord> checkpoints;
  while (statement.step()) {
    CheckpointRecord& checkpoint = checkpoints.emplace_back();
    statement >> checkpoint.job >> checkpoint.folder >> checkpoint.attempt >>
        checkpoint.iteration >> checkpoint.images >> checkpoint.bytes >> checkpoint.digest >>
        checkpoint.committed >> checkpoint.best;
    checkpoint.frechet = read_optional(statement);
    checkpoint.score = read_optional(statement);
  }
  return checkpoints;
}

bool Store::remember_message(const std::string& job, int attempt, int rank,
                             std::uint64_t sequence) {
  Statement statement(database_->handle, "INSERT OR IGNORE INTO messages VALUES (?, ?, ?, ?)");
  (statement << job << attempt << rank << static_cast<std::int64_t>(sequence)).run();
  return sqlite3_changes(database_->handle) > 0;
}

void Store::put_lease(const std::string& job, const LeaseRecord& lease) {
  Statement statement(database_->handle,
                      "INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?, ?, ?, ?, ?)");
  (statement << job << lease.shard << lease.first << lease.count << lease.rank << lease.attempt
             << lease.state << lease.sha256)
      .run();
}

std::vector<LeaseRecord> Store::leases(const std::string& job) {
  Statement statement(database_->handle,
                      "SELECT shard, first, count, rank, attempt, state, sha256 FROM leases "
                      "WHERE job = ? ORDER BY shard");
  statement << job;
  std::vector<LeaseRecord> leases;
  while (statement.step()) {
    LeaseRecord& lease = leases.emplace_back();
    statement >> lease.shard >> lease.first >> lease.count >> lease.rank >> lease.attempt >>
        lease.state >> lease.sha256;
  }
  return leases;
}

void Store::release_leases(const std::string& job, int attempt) {
  Statement statement(database_->handle,
                      "UPDATE leases SET state = 'released', attempt = 0 "
                      "WHERE job = ? AND attempt = ? AND state = 'leased'");
  (statement << job << attempt).run();
}

}  // namespace onestep
