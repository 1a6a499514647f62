// The store's events.
#include "coordinator/store_database.h"

namespace onestep {

std::int64_t Store::insert_event(const EventRecord& event) {
  Statement& statement = database_->statement(
      "INSERT INTO events(job, type, time, body) VALUES (?, ?, ?, ?)");
  (statement << event.job << event.type << event.time << event.body).run();
  return sqlite3_last_insert_rowid(database_->handle);
}

std::vector<EventRecord> Store::events(const EventFilter& filter) {
  std::string sql = "SELECT number, job, type, time, body FROM events WHERE number > ?";
  if (filter.until > 0) sql += " AND number <= ?";
  if (!filter.job.empty()) sql += " AND job = ?";
  if (!filter.pipeline.empty()) sql += " AND job IN (SELECT id FROM jobs WHERE pipeline = ?)";
  for (std::size_t i = 0; i < filter.types.size(); ++i) {
    sql += i == 0 ? " AND type IN (?" : ", ?";
  }
  if (!filter.types.empty()) sql += ")";
  sql += " ORDER BY number";
  if (filter.limit > 0) sql += " LIMIT ?";
  Statement& statement = database_->statement(sql.c_str());
  statement << filter.after;
  if (filter.until > 0) statement << filter.until;
  if (!filter.job.empty()) statement << filter.job;
  if (!filter.pipeline.empty()) statement << filter.pipeline;
  for (const std::string& type : filter.types) statement << type;
  if (filter.limit > 0) statement << filter.limit;
  std::vector<EventRecord> events;
  while (statement.step()) {
    EventRecord& event = events.emplace_back();
    statement >> event.number >> event.job >> event.type >> event.time >> event.body;
  }
  return events;
}

std::int64_t Store::last_event() {
  Statement& statement = database_->statement("SELECT COALESCE(MAX(number), 0) FROM events");
  std::int64_t number = 0;
  while (statement.step()) statement >> number;
  return number;
}

}  // namespace onestep
