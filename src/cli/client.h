// The REST client: one request, one answer, errors as onestep::Error. The only file of the CLI with Beast.
#pragma once

#include <nlohmann/json.hpp>

#include <chrono>
#include <functional>
#include <map>
#include <string>

#include "cli/server_events.h"
#include "common/percent_encoding.h"

namespace onestep {

struct ServerUrl {
  bool tls = false;
  std::string host = {};  // "127.0.0.1", "::1", "localhost"
  std::string port = {};  // "8080"
};

// "http://HOST[:PORT][/]", "https://HOST[:PORT][/]" or "HOST:PORT"; without a port, 80 or 443. Errors: kUsage.
ServerUrl parse_server_url(const std::string& text);
// "http://127.0.0.1:8080".
std::string to_string(const ServerUrl& url);

struct ClientResponse {
  int status = 0;
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;
};

// What a coordinator asks of its callers.
struct Credentials {
  std::string token = {};    // "": none; sent over TLS or to this machine alone
  std::string ca_file = {};  // PEM; "": the system's authorities
};

// One connection a request; blocks; one thread.
class Client {
 public:
  // Errors: kUsage for a token that would go over a network in the clear; kCorrupt for a file that is no certificate.
  explicit Client(ServerUrl url, Credentials credentials = {}, std::chrono::milliseconds timeout = std::chrono::seconds(30));

  // Any answer below 400, as it came. Errors: kUnavailable when nobody answers in time or what answers is no coordinator;
  // else what the problem document says (a ConfigError with every violation for 422).
  ClientResponse request(const std::string& method, const std::string& target, const std::string& body = "",
                         const std::map<std::string, std::string>& headers = {}) const;
  // The same with JSON on both sides. Errors: also kUnavailable for an answer that is no JSON.
  nlohmann::json get(const std::string& target) const;
  nlohmann::json post(const std::string& target, const nlohmann::json& body) const;
  nlohmann::json post(const std::string& target) const;

  // Reads the event stream at `target` from after the event `id` ("": from the beginning) until `on_event` returns false or
  // the other side ends it. A heartbeat comes at least every 15 s as an event without a type.
  // Errors: kUnavailable when nobody answers, the connection breaks, or nothing comes for 45 s; else as request().
  void stream(const std::string& target, const std::string& id,
              const std::function<bool(const ServerEvent&)>& on_event) const;

  [[nodiscard]] const ServerUrl& url() const { return url_; }

 private:
  ServerUrl url_;
  Credentials credentials_;
  std::chrono::milliseconds timeout_;
};

// Throws what a response of 400 or above says; `where` names the server in messages about foreign answers.
[[noreturn]] void throw_problem(const ClientResponse& response, const std::string& where);

}  // namespace onestep
