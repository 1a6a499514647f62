// What the parts of the store share: the open database, and statements that are prepared once.
#pragma once

#include <sqlite3.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "coordinator/sqlite.h"
#include "coordinator/store.h"
#include "coordinator/store_log.h"

namespace onestep {

// Neither terminal nor interrupted.
constexpr const char* kUnfinishedStates = "('waiting', 'blocked', 'queued', 'starting', 'running', 'stopping')";

struct Store::Database {
  sqlite3* handle = nullptr;
  // By their text; for what runs thousands of times a second.
  std::map<std::string, std::unique_ptr<Statement>> prepared;
  std::unique_ptr<LogCopier> log_copier;  // null: whoever commits copies

  ~Database() {
    log_copier.reset();
    prepared.clear();
    sqlite3_close(handle);
  }

  // Ready to be bound anew. One use at a time: a second one of the same text ends the first.
  Statement& statement(const char* sql) {
    std::unique_ptr<Statement>& slot = prepared[sql];
    if (!slot) slot = std::make_unique<Statement>(handle, sql);
    slot->reset();
    return *slot;
  }

  std::int64_t count(const char* sql) {
    Statement& row = statement(sql);
    std::int64_t number = 0;
    while (row.step()) row >> number;
    return number;
  }

  std::vector<std::string> texts(const char* sql, const std::string& argument) {
    Statement& query = statement(sql);
    query << argument;
    std::vector<std::string> values;
    while (query.step()) query >> values.emplace_back();
    return values;
  }

  std::int64_t next(const char* counter) {
    Statement& query = statement("UPDATE counters SET value = value + 1 WHERE name = ? RETURNING value");
    query << counter;
    std::int64_t value = 0;
    while (query.step()) query >> value;
    return value;
  }
};

}  // namespace onestep
