#include "coordinator/problem.h"

#include <nlohmann/json.hpp>

namespace onestep {

std::string_view reason_phrase(int status) {
  switch (status) {
    case 200: return "OK";
    case 201: return "Created";
    case 202: return "Accepted";
    case 400: return "Bad Request";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 408: return "Request Timeout";
    case 409: return "Conflict";
    case 413: return "Content Too Large";
    case 415: return "Unsupported Media Type";
    case 422: return "Unprocessable Content";
    case 431: return "Request Header Fields Too Large";
    case 503: return "Service Unavailable";
    case 507: return "Insufficient Storage";
    default: return "Internal Server Error";
  }
}

HttpResponse problem(int status, const std::string& name, const std::string& detail,
                     const std::string& instance, const std::vector<Violation>& errors) {
  nlohmann::ordered_json document = {{"type", "urn:onestep:problem:" + name},
                                     {"title", reason_phrase(status)},
                                     {"status", status},
                                     {"detail", detail},
                                     {"instance", instance}};
  if (!errors.empty()) {
    document["errors"] = nlohmann::ordered_json::array();
    for (const Violation& error : errors) {
      document["errors"].push_back({{"pointer", error.pointer}, {"detail", error.message}});
    }
  }
  // Details and targets quote what the client sent, which need not be valid UTF-8.
  const auto replace = nlohmann::ordered_json::error_handler_t::replace;
  return {.status = status,
          .content_type = "application/problem+json",
          .headers = {},
          .body = document.dump(-1, ' ', false, replace) + "\n"};
}

HttpResponse problem(const Error& error, const std::string& instance) {
  std::vector<Violation> errors;
  if (const auto* config = dynamic_cast<const ConfigError*>(&error)) errors = config->violations();
  return problem(http_status(error.code()), to_string(error.code()), error.what(), instance, errors);
}

int http_status(ErrorCode code) {
  switch (code) {
    case ErrorCode::kUsage: return 400;
    case ErrorCode::kNotFound: return 404;
    case ErrorCode::kConflict: return 409;
    case ErrorCode::kConfig:
    case ErrorCode::kMismatch: return 422;
    case ErrorCode::kUnavailable: return 503;
    case ErrorCode::kIo: return 507;
    case ErrorCode::kInternal:
    case ErrorCode::kCorrupt:
    case ErrorCode::kJobFailed:
    case ErrorCode::kInterrupted: return 500;
  }
  return 500;
}

}  // namespace onestep
