// The store's tokens of people and of attempts, and the answers to submissions that carried a key.
#include "coordinator/store_database.h"

namespace onestep {
namespace {

TokenRecord read_token(Statement& row) {
  TokenRecord token;
  row >> token.id >> token.role >> token.label >> token.hash >> token.created >> token.expires >> token.revoked;
  return token;
}

constexpr const char* kSelectTokens = "SELECT id, role, label, hash, created, expires, revoked FROM tokens";

}  // namespace

void Store::copy_to(const std::string& to) {
  Database target;
  int code = sqlite3_open_v2(to.c_str(), &target.handle, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, nullptr);
  if (code != SQLITE_OK) throw_sqlite(target.handle, code, to + ": making the copy");
  sqlite3_backup* backup = sqlite3_backup_init(target.handle, "main", database_->handle, "main");
  if (backup == nullptr) throw_sqlite(target.handle, sqlite3_errcode(target.handle), to + ": beginning the copy");
  // In one step: with a pause between steps every write of the coordinator would start it anew.
  do {
    code = sqlite3_backup_step(backup, -1);
    if (code == SQLITE_BUSY || code == SQLITE_LOCKED) sqlite3_sleep(20);
  } while (code == SQLITE_BUSY || code == SQLITE_LOCKED);
  const int finished = sqlite3_backup_finish(backup);
  if (code != SQLITE_DONE || finished != SQLITE_OK) throw_sqlite(target.handle, code, to + ": copying");
  // One file, without a log beside it.
  Statement journal(target.handle, "PRAGMA journal_mode = DELETE");
  while (journal.step()) {
  }
  Statement check(target.handle, "PRAGMA integrity_check");
  std::string verdict;
  if (check.step()) check >> verdict;
  if (verdict != "ok") throw Error(ErrorCode::kCorrupt, to + ": expected a whole database, found: " + verdict);
}

std::int64_t Store::schema_version(const std::string& path) {
  Database database;
  const int code = sqlite3_open_v2(path.c_str(), &database.handle, SQLITE_OPEN_READONLY, nullptr);
  if (code == SQLITE_CANTOPEN) return 0;
  if (code != SQLITE_OK) throw_sqlite(database.handle, code, path + ": opening the database");
  Statement statement(database.handle, "PRAGMA user_version");
  std::int64_t version = 0;
  if (statement.step()) statement >> version;
  return version;
}

void Store::insert_token(const TokenRecord& token) {
  Statement statement(database_->handle, "INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?, ?)");
  (statement << token.id << token.role << token.label << token.hash << token.created << token.expires << token.revoked).run();
}

bool Store::revoke_token(const std::string& id, double now) {
  Statement statement(database_->handle, "UPDATE tokens SET revoked = ? WHERE id = ? AND revoked = 0");
  (statement << now << id).run();
  return sqlite3_changes(database_->handle) > 0;
}

std::optional<TokenRecord> Store::token(const std::string& id) {
  Statement statement(database_->handle, (std::string(kSelectTokens) + " WHERE id = ?").c_str());
  statement << id;
  if (!statement.step()) return std::nullopt;
  return read_token(statement);
}

std::vector<TokenRecord> Store::tokens() {
  Statement statement(database_->handle, (std::string(kSelectTokens) + " ORDER BY created, id").c_str());
  std::vector<TokenRecord> tokens;
  while (statement.step()) tokens.push_back(read_token(statement));
  return tokens;
}

void Store::put_attempt_token(const std::string& job, int attempt, const std::string& hash) {
  Statement statement(database_->handle, "INSERT OR REPLACE INTO attempt_tokens VALUES (?, ?, ?)");
  (statement << job << attempt << hash).run();
}

std::string Store::attempt_token(const std::string& job, int attempt) {
  Statement statement(database_->handle, "SELECT hash FROM attempt_tokens WHERE job = ? AND attempt = ?");
  statement << job << attempt;
  std::string hash;
  if (statement.step()) statement >> hash;
  return hash;
}

void Store::put_submission(const SubmissionRecord& submission) {
  Statement& statement = database_->statement("INSERT OR REPLACE INTO submissions VALUES (?, ?, ?, ?, ?)");
  (statement << submission.key << submission.fingerprint << submission.pipeline << submission.answer << submission.created).run();
}

std::optional<SubmissionRecord> Store::submission(const std::string& key) {
  Statement statement(database_->handle, "SELECT key, fingerprint, pipeline, answer, created FROM submissions WHERE key = ?");
  statement << key;
  if (!statement.step()) return std::nullopt;
  SubmissionRecord found;
  statement >> found.key >> found.fingerprint >> found.pipeline >> found.answer >> found.created;
  return found;
}

void Store::forget_submissions(double before) {
  Statement statement(database_->handle, "DELETE FROM submissions WHERE created < ?");
  (statement << before).run();
}

std::vector<PipelineRecord> Store::pipelines(std::int64_t after, std::int64_t limit) {
  Statement statement(database_->handle, "SELECT number, id, name, created FROM pipelines WHERE number > ? ORDER BY number LIMIT ?");
  statement << after << limit;
  std::vector<PipelineRecord> pipelines;
  while (statement.step()) {
    PipelineRecord& pipeline = pipelines.emplace_back();
    statement >> pipeline.number >> pipeline.id >> pipeline.name >> pipeline.created;
  }
  return pipelines;
}

std::int64_t Store::num_unfinished_jobs() {
  static const std::string sql = std::string("SELECT COUNT(*) FROM jobs WHERE state IN ") + kUnfinishedStates;
  return database_->count(sql.c_str());
}

}  // namespace onestep
