// The store's alarms, and the state that they are judged from.
#include <cmath>
#include <limits>

#include "coordinator/store_database.h"

namespace onestep {
namespace {

AlarmRecord read_alarm(Statement& row) {
  AlarmRecord alarm;
  row >> alarm.number >> alarm.job >> alarm.code >> alarm.rank >> alarm.attempt >> alarm.stage >> alarm.iteration >> alarm.images >>
      alarm.since_iteration >> alarm.since_images;
  const bool is_none = row.next_is_null();  // SQL knows no NaN
  row >> alarm.value >> alarm.bound >> alarm.reason >> alarm.hint >> alarm.action >> alarm.raised >> alarm.ended;
  if (is_none) alarm.value = std::numeric_limits<double>::quiet_NaN();
  return alarm;
}

std::vector<AlarmRecord> read_alarms(Statement& rows) {
  std::vector<AlarmRecord> alarms;
  while (rows.step()) alarms.push_back(read_alarm(rows));
  return alarms;
}

}  // namespace

std::int64_t Store::insert_alarm(const AlarmRecord& alarm) {
  Statement& statement = database_->statement(
      "INSERT INTO alarms(job, code, rank, attempt, stage, iteration, images, since_iteration, since_images, value, bound, reason, hint, "
      "action, raised, ended) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
  statement << alarm.job << alarm.code << alarm.rank << alarm.attempt << alarm.stage << alarm.iteration << alarm.images
            << alarm.since_iteration << alarm.since_images;
  if (std::isfinite(alarm.value)) {
    statement << alarm.value;
  } else {
    statement.null();
  }
  (statement << alarm.bound << alarm.reason << alarm.hint << alarm.action << alarm.raised << alarm.ended).run();
  return sqlite3_last_insert_rowid(database_->handle);
}

void Store::end_alarm(std::int64_t number, double ended) {
  Statement& statement = database_->statement("UPDATE alarms SET ended = ? WHERE number = ?");
  (statement << ended << number).run();
}

std::vector<AlarmRecord> Store::alarms(const std::string& job) {
  Statement& rows = database_->statement("SELECT * FROM alarms WHERE job = ? ORDER BY number");
  rows << job;
  return read_alarms(rows);
}

std::vector<AlarmRecord> Store::holding_alarms() {
  return read_alarms(database_->statement("SELECT * FROM alarms WHERE ended = 0 ORDER BY number"));
}

int Store::num_holding_alarms(const std::string& job) {
  Statement& row = database_->statement("SELECT COUNT(*) FROM alarms WHERE job = ? AND ended = 0");
  row << job;
  int count = 0;
  while (row.step()) row >> count;
  return count;
}

std::vector<AlarmCount> Store::alarm_counts() {
  Statement& rows = database_->statement("SELECT code, COUNT(*), SUM(ended = 0) FROM alarms GROUP BY code ORDER BY code");
  std::vector<AlarmCount> counts;
  while (rows.step()) {
    AlarmCount& count = counts.emplace_back();
    rows >> count.code >> count.raised >> count.holding;
  }
  return counts;
}

void Store::put_health(const std::string& job, const nlohmann::json& state) {
  Statement& statement = database_->statement("INSERT OR REPLACE INTO health VALUES (?, ?)");
  (statement << job << state.dump()).run();
}

nlohmann::json Store::health(const std::string& job) {
  Statement& row = database_->statement("SELECT state FROM health WHERE job = ?");
  row << job;
  std::string text;
  while (row.step()) row >> text;
  return text.empty() ? nlohmann::json() : nlohmann::json::parse(text);
}

}  // namespace onestep
