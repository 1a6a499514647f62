// An HTTP request and its response as plain values: the API works on these and knows no sockets.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>

namespace onestep {

class BodyStream;

struct HttpRequest {
  std::string method;                          // "GET", "HEAD", "POST", ...
  std::string target;                          // "/api/v1/jobs?limit=10", still percent-encoded
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::map<std::string, std::string> headers;  // further ones: Location, Allow, ...
  std::string body;
  std::shared_ptr<BodyStream> stream = nullptr;  // instead of `body`: goes on until one side closes
};

// "Not Found" for 404: the phrase on the status line and the title of problem documents.
std::string_view reason_phrase(int status);

}  // namespace onestep
