// An HTTP request and its response as plain values: the API works on these and knows no sockets.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "coordinator/beneath.h"

namespace onestep {

class BodyStream;

struct HttpRequest {
  std::string method;                          // "GET", "HEAD", "POST", ...
  std::string target;                          // "/api/v1/jobs?limit=10", still percent-encoded
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;
};

// Bytes of a file that are sent as they are read.
struct FilePart {
  OpenFile file;
  std::int64_t offset = 0;
  std::int64_t length = 0;
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::map<std::string, std::string> headers;  // further ones: Location, Allow, ...
  std::string body;
  std::shared_ptr<BodyStream> stream = nullptr;  // instead of `body`: goes on until one side closes
  std::shared_ptr<FilePart> file = nullptr;      // instead of `body`
};

// "" where there is none; `name` in lower case.
inline std::string header_field(const HttpRequest& request, const std::string& name) {
  const auto found = request.headers.find(name);
  return found == request.headers.end() ? "" : found->second;
}

// "Not Found" for 404: the phrase on the status line and the title of problem documents.
std::string_view reason_phrase(int status);

}  // namespace onestep
