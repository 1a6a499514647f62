// The one exception type, its codes, and what each code means to a shell and to a REST client.
#pragma once

#include <stdexcept>
#include <string>
#include <vector>

namespace onestep {

enum class ErrorCode {
  kInternal,     // a bug, or something nobody foresaw
  kUsage,        // wrong command line
  kConfig,       // wrong job spec: unknown key, type, range
  kNotFound,     // a named file, job or output does not exist
  kCorrupt,      // a file is truncated, bit-flipped or of another format
  kMismatch,     // two valid things do not belong together
  kIo,           // the operating system refused: full disk, permission
  kUnavailable,  // nobody answers, or a port is in use
  kConflict,     // right now this can't be done to that
  kJobFailed,    // the job that was followed failed
  kInterrupted,  // stopped on request after saving; can be resumed
};

// Exit status of every program: 0 done, 1 kInternal, 2 kUsage, 3 kConfig, 4 kNotFound/kCorrupt/kMismatch, 5 kIo,
// 6 kUnavailable, 7 kJobFailed, 8 kConflict, 9 kInterrupted.
int exit_status(ErrorCode code);
// True when doing the same again can't help: kUsage, kConfig, kNotFound, kCorrupt, kMismatch.
bool is_user_error(ErrorCode code);
// "config", "not_found", ...: the name in telemetry, results and problem documents.
const char* to_string(ErrorCode code);
ErrorCode error_code_from_string(const std::string& name);

class Error : public std::runtime_error {
 public:
  // message: what; value found; constraint or expectation; hint.
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  [[nodiscard]] ErrorCode code() const { return code_; }

 private:
  ErrorCode code_;
};

// One thing wrong with a configuration.
struct Violation {
  std::string pointer;  // JSON pointer to the field: "/dmd/batch"
  std::string message;  // "expected an integer >= 1, found -3"
};

// All violations of one configuration at once; what() lists them a line each.
class ConfigError : public Error {
 public:
  ConfigError(const std::string& where, std::vector<Violation> violations);
  [[nodiscard]] const std::vector<Violation>& violations() const { return violations_; }

 private:
  std::vector<Violation> violations_;
};

}  // namespace onestep
