// A thin RAII layer over the SQLite C API: only the store's files include it.
#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <string>

#include "common/error.h"

namespace onestep {

[[noreturn]] inline void throw_sqlite(sqlite3* database, int code, const std::string& what) {
  const bool corrupt = (code & 0xff) == SQLITE_CORRUPT || (code & 0xff) == SQLITE_NOTADB;
  throw Error(corrupt ? ErrorCode::kCorrupt : ErrorCode::kIo,
              what + " failed; SQLite says: " +
                  (database != nullptr ? sqlite3_errmsg(database) : sqlite3_errstr(code)));
}

// One prepared statement, used once or after reset() again: bind in order with `<<`, then run() or step through rows,
// reading in order with `>>`.
class Statement {
 public:
  Statement(sqlite3* database, const char* sql) : database_(database), sql_(sql) {
    const int code = sqlite3_prepare_v2(database, sql, -1, &statement_, nullptr);
    if (code != SQLITE_OK) throw_sqlite(database, code, std::string("preparing \"") + sql + "\"");
  }
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;
  ~Statement() { sqlite3_finalize(statement_); }

  Statement& operator<<(std::int64_t value) {
    return bound(sqlite3_bind_int64(statement_, ++num_bound_, value));
  }
  Statement& operator<<(int value) { return *this << static_cast<std::int64_t>(value); }
  Statement& operator<<(bool value) { return *this << static_cast<std::int64_t>(value); }
  Statement& operator<<(double value) {
    return bound(sqlite3_bind_double(statement_, ++num_bound_, value));
  }
  Statement& operator<<(const std::string& value) {
    return bound(sqlite3_bind_text(statement_, ++num_bound_, value.data(),
                                   static_cast<int>(value.size()), SQLITE_TRANSIENT));
  }
  Statement& operator<<(const char* value) { return *this << std::string(value); }
  Statement& null() { return bound(sqlite3_bind_null(statement_, ++num_bound_)); }

  // True: a row is there to be read.
  bool step() {
    num_read_ = 0;
    const int code = sqlite3_step(statement_);
    if (code == SQLITE_ROW) return true;
    if (code != SQLITE_DONE) throw_sqlite(database_, code, "\"" + sql_ + "\"");
    return false;
  }
  void run() {
    while (step()) {
    }
  }

  Statement& operator>>(std::int64_t& value) {
    value = sqlite3_column_int64(statement_, num_read_++);
    return *this;
  }
  Statement& operator>>(int& value) {
    value = sqlite3_column_int(statement_, num_read_++);
    return *this;
  }
  Statement& operator>>(bool& value) {
    value = sqlite3_column_int(statement_, num_read_++) != 0;
    return *this;
  }
  Statement& operator>>(double& value) {
    value = sqlite3_column_double(statement_, num_read_++);
    return *this;
  }
  Statement& operator>>(std::string& value) {
    const unsigned char* text = sqlite3_column_text(statement_, num_read_);
    const int size = sqlite3_column_bytes(statement_, num_read_++);
    value.assign(reinterpret_cast<const char*>(text), text != nullptr ? size : 0);
    return *this;
  }
  // Is the next column null?
  [[nodiscard]] bool next_is_null() const {
    return sqlite3_column_type(statement_, num_read_) == SQLITE_NULL;
  }
  void skip() { ++num_read_; }
  // Back to before the first `<<`; what was bound is forgotten.
  void reset() {
    sqlite3_reset(statement_);
    sqlite3_clear_bindings(statement_);
    num_bound_ = 0;
    num_read_ = 0;
  }

 private:
  Statement& bound(int code) {
    if (code != SQLITE_OK) throw_sqlite(database_, code, "binding to \"" + sql_ + "\"");
    return *this;
  }

  sqlite3* database_;
  std::string sql_;
  sqlite3_stmt* statement_ = nullptr;
  int num_bound_ = 0;
  int num_read_ = 0;
};

}  // namespace onestep
