// Who may come in: which callers REST answers at all, and what their tokens allow.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "coordinator/access_tokens.h"
#include "coordinator/http_message.h"

namespace onestep {

struct AccessRules {
  bool tokens = false;             // every call but those that are open to all needs one
  bool tls = false;
  std::vector<std::string> hosts;  // names in Host besides loopback ones: those of the certificate
};

// A listener that other machines reach needs TLS and tokens. Errors: kUsage saying what is missing.
void require_locked_doors(const std::string& address, bool is_loopback, bool tls, bool tokens, int num_tokens);

// Host and Origin of a browser's page that is not ours; nullopt: fine. Every request, before anything else of it is looked at.
std::optional<HttpResponse> refuse_foreign(const HttpRequest& request, const AccessRules& rules);

// Whoever a request comes from.
struct Caller {
  std::optional<Role> role;  // null: nobody known
  std::string token;         // its id; "" without tokens
};
// The request's bearer token, judged; the answer (401) when it has none that opens anything.
struct Admission {
  Caller caller;
  std::optional<HttpResponse> refusal;
};
Admission admit(const HttpRequest& request, const AccessRules& rules,
                const std::function<TokenVerdict(const std::string&)>& judge);
// 403 when the caller's role is lower.
std::optional<HttpResponse> refuse_role(const HttpRequest& request, const Caller& caller, Role needed);

// True for 127.0.0.0/8, ::1 and "localhost", the host part of a Host header or an origin.
bool is_loopback_host(const std::string& host);

}  // namespace onestep
