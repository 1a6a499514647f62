#include "coordinator/problem.h"

#include <nlohmann/json.hpp>

#include <array>
#include <utility>

#include "coordinator/request_query.h"

namespace onestep {

std::string_view reason_phrase(int status) {
  static constexpr std::array<std::pair<int, std::string_view>, 20> kPhrases = {
      {{200, "OK"},
       {201, "Created"},
       {202, "Accepted"},
       {206, "Partial Content"},
       {304, "Not Modified"},
       {400, "Bad Request"},
       {401, "Unauthorized"},
       {403, "Forbidden"},
       {404, "Not Found"},
       {405, "Method Not Allowed"},
       {409, "Conflict"},
       {413, "Content Too Large"},
       {415, "Unsupported Media Type"},
       {416, "Range Not Satisfiable"},
       {422, "Unprocessable Content"},
       {429, "Too Many Requests"},
       {431, "Request Header Fields Too Large"},
       {500, "Internal Server Error"},
       {503, "Service Unavailable"},
       {507, "Insufficient Storage"}}};
  for (const auto& [known, phrase] : kPhrases) {
    if (known == status) return phrase;
  }
  return "Internal Server Error";
}

HttpResponse problem(int status, const std::string& name, const std::string& detail,
                     const std::string& instance, const std::vector<Violation>& errors, bool in_query) {
  nlohmann::ordered_json document = {{"type", "urn:onestep:problem:" + name},
                                     {"title", reason_phrase(status)},
                                     {"status", status},
                                     {"detail", detail},
                                     {"instance", instance}};
  if (!errors.empty()) {
    document["errors"] = nlohmann::ordered_json::array();
    for (const Violation& error : errors) {
      document["errors"].push_back({{in_query ? "parameter" : "pointer", error.pointer}, {"detail", error.message}});
    }
  }
  // Details and targets quote what the client sent, which need not be valid UTF-8.
  const auto replace = nlohmann::ordered_json::error_handler_t::replace;
  HttpResponse response{.status = status,
          .content_type = "application/problem+json",
          .headers = {},
          .body = document.dump(-1, ' ', false, replace) + "\n"};
  if (status == 429 || status == 503) response.headers["Retry-After"] = "5";
  return response;
}

HttpResponse problem(const Error& error, const std::string& instance) {
  std::vector<Violation> errors;
  if (const auto* config = dynamic_cast<const ConfigError*>(&error)) errors = config->violations();
  const auto* query = dynamic_cast<const QueryError*>(&error);
  if (query != nullptr) errors = query->violations();
  return problem(http_status(error.code()), to_string(error.code()), error.what(), instance,
                 errors, query != nullptr);
}

const std::vector<std::string>& problem_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> all = {"unauthorized", "forbidden"};
    for (const ErrorCode code : {ErrorCode::kInternal, ErrorCode::kUsage, ErrorCode::kConfig, ErrorCode::kNotFound, ErrorCode::kCorrupt,
                                 ErrorCode::kMismatch, ErrorCode::kIo, ErrorCode::kUnavailable, ErrorCode::kConflict,
                                 ErrorCode::kJobFailed, ErrorCode::kInterrupted}) {
      all.emplace_back(to_string(code));
    }
    return all;
  }();
  return names;
}

int http_status(ErrorCode code) {
  switch (code) {
    case ErrorCode::kUsage:
      return 400;
    case ErrorCode::kNotFound:
      return 404;
    case ErrorCode::kConflict:
      return 409;
    case ErrorCode::kConfig:
    case ErrorCode::kMismatch:
      return 422;
    case ErrorCode::kUnavailable:
      return 503;
    case ErrorCode::kIo:
      return 507;
    case ErrorCode::kInternal:
    case ErrorCode::kCorrupt:
    case ErrorCode::kJobFailed:
    case ErrorCode::kInterrupted:
      return 500;
  }
  return 500;
}

}  // namespace onestep
