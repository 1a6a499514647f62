// SQLite's write-ahead log is copied into the database file beside the work.
#pragma once

#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

struct sqlite3;

namespace onestep {

// From its making until its end, whoever commits on `writer` waits for one sync of the log and never for the database file's: what the
// log holds is copied by a thread that has a connection of its own, each time it has grown by kFrames pages. A copy that failed is
// tried again when the log has grown further; until then the log has everything.
class LogCopier {
 public:
  static constexpr int kFrames = 1000;       // pages of 4 KiB that are not copied yet: time for a copy
  static constexpr int kMaxFrames = 16'000;  // the thread does not keep up: the writer copies the rest itself, so that the log begins anew

  // Errors: kIo, kCorrupt.
  LogCopier(sqlite3* writer, const std::string& path);
  LogCopier(const LogCopier&) = delete;
  LogCopier& operator=(const LogCopier&) = delete;
  ~LogCopier();

 private:
  static int on_commit(void* self, sqlite3* writer, const char* name, int num_frames);
  void copy_until_stopped();
  // False: it did all that it can do now.
  bool copy();

  sqlite3* writer_;
  sqlite3* own_ = nullptr;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool due_ = false;
  bool stopping_ = false;
  int num_copied_ = 0;  // frames of the log that the database has
  std::string last_error_;
  std::thread thread_;
};

}  // namespace onestep
