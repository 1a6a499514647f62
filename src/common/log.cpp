#include "common/log.h"

#include <nlohmann/json.hpp>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <mutex>
#include <string_view>

#include <unistd.h>

#include "common/error.h"

namespace onestep {
namespace {

struct Context {
  std::string who;
  LogFields fields;
  std::atomic<std::int64_t> step = -1;
};

Context& context() {
  static Context context;
  return context;
}

const char* name_of(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return "debug";
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kWarning:
      return "warning";
    case LogLevel::kError:
      return "error";
  }
  return "error";
}

bool environment_says(const char* variable, std::string_view value) {
  const char* found = std::getenv(variable);
  return found != nullptr && found == value;
}

// "2026-01-31T12:00:00.123Z"
std::string now_text() {
  const auto now = std::chrono::system_clock::now();
  const auto since_epoch =
      std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch());
  const std::time_t seconds = std::chrono::system_clock::to_time_t(now);
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  char date[32];
  std::strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &utc);
  char text[48];
  std::snprintf(text, sizeof(text), "%s.%03dZ", date, static_cast<int>(since_epoch.count() % 1000));
  return text;
}

std::string json_line(LogLevel level, const std::string& message, const LogFields& given) {
  const LogFields& fields = given.job.empty() ? context().fields : given;
  nlohmann::ordered_json line = {{"time", now_text()}, {"level", name_of(level)}, {"who", context().who}};
  if (!fields.job.empty()) line["job"] = fields.job;
  if (fields.attempt > 0) line["attempt"] = fields.attempt;
  if (fields.rank >= 0) line["rank"] = fields.rank;
  if (const std::int64_t step = context().step; step >= 0) line["step"] = step;
  line["message"] = message;
  return line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

std::string line_of(LogLevel level, const std::string& message, const LogFields& fields) {
  static const bool as_json = environment_says("ONESTEP_LOG", "json");
  if (as_json) return json_line(level, message, fields);
  const std::string who = context().who.empty() ? "" : context().who + ": ";
  return now_text() + " " + name_of(level) + " " + who + message + "\n";
}

}  // namespace

void set_log_context(const std::string& who, const LogFields& fields) {
  context().who = who;
  context().fields = fields;
}

void set_log_step(std::int64_t step) { context().step = step; }

void set_log_format(const std::string& format) {
  if (format != "text" && format != "json") {
    throw Error(ErrorCode::kUsage, "log format: expected text or json, found \"" + format + "\"");
  }
  setenv("ONESTEP_LOG", format.c_str(), 1);
}

void log(LogLevel level, const std::string& message, const LogFields& fields) {
  static const bool with_debug = environment_says("ONESTEP_LOG_LEVEL", "debug");
  if (level == LogLevel::kDebug && !with_debug) return;
  const std::string line = line_of(level, message, fields);
  // One write a line, under a lock: lines of threads don't mix.
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  std::string_view rest = line;
  while (!rest.empty()) {
    const ssize_t written = write(STDERR_FILENO, rest.data(), rest.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return;  // nobody reads: a log must never stop the work
    rest.remove_prefix(static_cast<std::size_t>(written));
  }
}

}  // namespace onestep
