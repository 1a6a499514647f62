// One line a message on standard error: time, level, who, text. JSON lines with ONESTEP_LOG=json;
// debug lines only with ONESTEP_LOG_LEVEL=debug.
#pragma once

#include <string>

namespace onestep {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

// Prefix of every later line, e.g. "distill-4 a1 r0". Set once at start, before threads.
void set_log_context(const std::string& who);
void log(LogLevel level, const std::string& message);  // thread-safe
inline void log_info(const std::string& message) { log(LogLevel::kInfo, message); }
inline void log_warning(const std::string& message) { log(LogLevel::kWarning, message); }
inline void log_error(const std::string& message) { log(LogLevel::kError, message); }

}  // namespace onestep
