// One line a message on standard error: time, level, who, text. JSON lines with ONESTEP_LOG=json, with job, attempt,
// rank and step where they are known; debug lines only with ONESTEP_LOG_LEVEL=debug.
#pragma once

#include <cstdint>
#include <string>

namespace onestep {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

// What a JSON line says of a message apart from its text.
struct LogFields {
  std::string job;
  int attempt = 0;  // 0: none
  int rank = -1;    // -1: none
};

// Prefix of every later line, e.g. "distill-4 a1 r0". Set once at start, before threads.
// `fields` stand in every later JSON line that has none of its own.
void set_log_context(const std::string& who, const LogFields& fields = {});
// Iterations done, in every later JSON line; -1: none. Thread-safe.
void set_log_step(std::int64_t step);
// Errors: kUsage for other formats than "text" and "json". For this process and those that it launches.
void set_log_format(const std::string& format);

void log(LogLevel level, const std::string& message, const LogFields& fields = {});  // thread-safe
inline void log_info(const std::string& message, const LogFields& fields = {}) { log(LogLevel::kInfo, message, fields); }
inline void log_warning(const std::string& message, const LogFields& fields = {}) { log(LogLevel::kWarning, message, fields); }
inline void log_error(const std::string& message, const LogFields& fields = {}) { log(LogLevel::kError, message, fields); }

}  // namespace onestep
