#include "coordinator/store_log.h"

#include "common/log.h"
#include "coordinator/store_database.h"

namespace onestep {
namespace {

// What came while it copied is little, and copied in no time: after a few rounds the log is whole in the database, and begins anew.
constexpr int kRounds = 5;

}  // namespace

LogCopier::LogCopier(sqlite3* writer, const std::string& path) : writer_(writer) {
  const int code = sqlite3_open_v2(path.c_str(), &own_, SQLITE_OPEN_READWRITE, nullptr);
  if (code != SQLITE_OK) {
    const std::string reason = sqlite3_errmsg(own_);
    sqlite3_close(own_);
    throw_sqlite(nullptr, code, path + ": opening the database once more (" + reason + ")");
  }
  sqlite3_exec(own_, "PRAGMA synchronous = FULL", nullptr, nullptr, nullptr);
  thread_ = std::thread([this] { copy_until_stopped(); });
  sqlite3_wal_hook(writer_, on_commit, this);  // instead of the usual copy by the writer
}

LogCopier::~LogCopier() {
  sqlite3_wal_hook(writer_, nullptr, nullptr);
  {
    const std::scoped_lock lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_one();
  thread_.join();
  sqlite3_close(own_);
}

int LogCopier::on_commit(void* self, sqlite3* writer, const char* name, int num_frames) {
  auto& copier = *static_cast<LogCopier*>(self);
  {
    const std::scoped_lock lock(copier.mutex_);
    if (num_frames < copier.num_copied_) copier.num_copied_ = 0;  // the log began anew
    if (num_frames - copier.num_copied_ < kFrames) return SQLITE_OK;
    copier.due_ = true;
  }
  copier.changed_.notify_one();
  if (num_frames >= kMaxFrames) sqlite3_wal_checkpoint_v2(writer, name, SQLITE_CHECKPOINT_PASSIVE, nullptr, nullptr);
  return SQLITE_OK;
}

void LogCopier::copy_until_stopped() {
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return due_ || stopping_; });
      if (stopping_) return;
      due_ = false;
    }
    for (int round = 0; round < kRounds && copy(); ++round) {
    }
  }
}

bool LogCopier::copy() {
  int num_frames = 0, num_copied = 0;
  const int code = sqlite3_wal_checkpoint_v2(own_, nullptr, SQLITE_CHECKPOINT_PASSIVE, &num_frames, &num_copied);
  if (code != SQLITE_OK && code != SQLITE_BUSY) {
    const std::string error = sqlite3_errmsg(own_);
    if (error != last_error_) log_warning("copying the database's log failed, which goes on growing: " + error);
    last_error_ = error;
    return false;
  }
  last_error_.clear();
  const std::scoped_lock lock(mutex_);
  num_copied_ = num_copied;
  return code == SQLITE_OK && num_copied < num_frames;
}

}  // namespace onestep
