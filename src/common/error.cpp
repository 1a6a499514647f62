#include "common/error.h"

#include <array>
#include <utility>

namespace onestep {
namespace {

constexpr std::array<std::pair<ErrorCode, const char*>, 11> kNames = {{
    {ErrorCode::kInternal, "internal"},
    {ErrorCode::kUsage, "usage"},
    {ErrorCode::kConfig, "config"},
    {ErrorCode::kNotFound, "not_found"},
    {ErrorCode::kCorrupt, "corrupt"},
    {ErrorCode::kMismatch, "mismatch"},
    {ErrorCode::kIo, "io"},
    {ErrorCode::kUnavailable, "unavailable"},
    {ErrorCode::kConflict, "conflict"},
    {ErrorCode::kJobFailed, "job_failed"},
    {ErrorCode::kInterrupted, "interrupted"},
}};

std::string list_violations(const std::string& where, const std::vector<Violation>& violations) {
  std::string text = where + ": " + std::to_string(violations.size()) +
                     (violations.size() == 1 ? " problem" : " problems");
  for (const Violation& violation : violations) {
    text += "\n  " + (violation.pointer.empty() ? "/" : violation.pointer) + ": " + violation.message;
  }
  return text;
}

}  // namespace

int exit_status(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInternal: return 1;
    case ErrorCode::kUsage: return 2;
    case ErrorCode::kConfig: return 3;
    case ErrorCode::kNotFound:
    case ErrorCode::kCorrupt:
    case ErrorCode::kMismatch: return 4;
    case ErrorCode::kIo: return 5;
    case ErrorCode::kUnavailable: return 6;
    case ErrorCode::kJobFailed: return 7;
    case ErrorCode::kConflict: return 8;
    case ErrorCode::kInterrupted: return 9;
  }
  return 1;
}

bool is_user_error(ErrorCode code) {
  return code == ErrorCode::kUsage || code == ErrorCode::kConfig || code == ErrorCode::kNotFound ||
         code == ErrorCode::kCorrupt || code == ErrorCode::kMismatch;
}

const char* to_string(ErrorCode code) {
  for (const auto& [known, name] : kNames) {
    if (known == code) return name;
  }
  return "internal";
}

ErrorCode error_code_from_string(const std::string& name) {
  for (const auto& [code, known] : kNames) {
    if (name == known) return code;
  }
  return ErrorCode::kInternal;
}

ConfigError::ConfigError(const std::string& where, std::vector<Violation> violations)
    : Error(ErrorCode::kConfig, list_violations(where, violations)),
      violations_(std::move(violations)) {}

}  // namespace onestep
