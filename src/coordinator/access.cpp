#include "coordinator/access.h"

#include <arpa/inet.h>

#include <algorithm>
#include <array>
#include <cctype>

#include "coordinator/problem.h"

namespace onestep {
namespace {

std::string lowered(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text;
}

// "127.0.0.1:8080" -> "127.0.0.1"; "[::1]:80" -> "[::1]".
std::string host_name(const std::string& host) {
  const std::size_t colon = host.rfind(':');
  const bool inside_brackets = colon != std::string::npos && host.find(']', colon) != std::string::npos;
  return colon == std::string::npos || inside_brackets ? host : host.substr(0, colon);
}

std::string without_brackets(const std::string& host) {
  const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  return bracketed ? host.substr(1, host.size() - 2) : host;
}

bool is_known_host(const std::string& host, const AccessRules& rules) {
  const std::string name = lowered(without_brackets(host_name(host)));
  return is_loopback_host(host_name(host)) ||
         std::find(rules.hosts.begin(), rules.hosts.end(), name) != rules.hosts.end();
}

// A page of another site that a browser shows must not reach us, neither under a name that it has pointed here (Host) nor by
// a request of its own (Origin, Sec-Fetch-Site). A link to the dashboard may be followed from anywhere.
std::string why_foreign(const HttpRequest& request, const AccessRules& rules) {
  const std::string host = header_field(request, "host");
  if (!host.empty() && !is_known_host(host, rules)) {
    return "Host: expected a loopback address, localhost" +
           std::string(rules.hosts.empty() ? "" : " or a name of the certificate") + ", found \"" + host + "\"";
  }
  const std::string own = (rules.tls ? "https://" : "http://") + host;
  const std::string origin = header_field(request, "origin");
  if (!origin.empty() && lowered(origin) != lowered(own)) {
    return "Origin: expected \"" + own + "\", found \"" + origin + "\"";
  }
  const std::string site = header_field(request, "sec-fetch-site");
  const bool follows_link = header_field(request, "sec-fetch-mode") == "navigate" && request.method == "GET";
  if (!site.empty() && site != "same-origin" && site != "none" && !follows_link) {
    return "Sec-Fetch-Site: expected same-origin or none, found \"" + site + "\"";
  }
  return "";
}

}  // namespace

bool is_loopback_host(const std::string& host) {
  if (lowered(host) == "localhost") return true;
  const std::string address = without_brackets(host);
  std::array<unsigned char, 16> bytes{};
  if (::inet_pton(AF_INET, address.c_str(), bytes.data()) == 1) return bytes[0] == 127;
  if (::inet_pton(AF_INET6, address.c_str(), bytes.data()) != 1) return false;
  std::array<unsigned char, 16> loopback{};
  loopback[15] = 1;
  return bytes == loopback;
}

void require_locked_doors(const std::string& address, bool is_loopback, bool tls, bool tokens, int num_tokens) {
  if (is_loopback) return;
  const std::string start = "--listen " + address + " is reachable from other machines, and whoever may submit jobs there " +
                            "runs programs here: ";
  if (!tls) {
    throw Error(ErrorCode::kUsage, start + "expected TLS, found none; make certificates with 'onestep init-tls' and name " +
                                       "their folder with --tls DIR, or listen on 127.0.0.1 and use a tunnel (ssh -L)");
  }
  if (!tokens) throw Error(ErrorCode::kUsage, start + "expected tokens, found --auth none");
  if (num_tokens == 0) {
    throw Error(ErrorCode::kUsage, start + "expected at least one valid token, found none; make one with " +
                                       "'onestep token add --role admin'");
  }
}

std::optional<HttpResponse> refuse_foreign(const HttpRequest& request, const AccessRules& rules) {
  const std::string why = why_foreign(request, rules);
  if (why.empty()) return std::nullopt;
  return problem(403, "forbidden", why, request.target);
}

Admission admit(const HttpRequest& request, const AccessRules& rules,
                const std::function<TokenVerdict(const std::string&)>& judge) {
  if (!rules.tokens) return {{Role::kAdmin, ""}, std::nullopt};
  const std::string authorization = header_field(request, "authorization");
  std::string reason = "expected \"Authorization: Bearer TOKEN\", found ";
  const std::size_t space = authorization.find(' ');
  if (authorization.empty()) {
    reason += "none";
  } else if (space == std::string::npos || lowered(authorization.substr(0, space)) != "bearer") {
    reason += "another scheme";
  } else {
    const TokenVerdict verdict = judge(authorization.substr(std::min(authorization.find_first_not_of(' ', space), authorization.size())));
    if (verdict.role) return {{verdict.role, verdict.id}, std::nullopt};
    reason = verdict.reason;
  }
  HttpResponse response = problem(401, "unauthorized", reason, request.target);
  response.headers["WWW-Authenticate"] =
      authorization.empty() ? "Bearer realm=\"onestep\"" : "Bearer realm=\"onestep\", error=\"invalid_token\"";
  return {{}, response};
}

std::optional<HttpResponse> refuse_role(const HttpRequest& request, const Caller& caller, Role needed) {
  if (caller.role && *caller.role >= needed) return std::nullopt;
  return problem(403, "forbidden",
                 std::string("expected a token of role ") + to_string(needed) + " or higher, found " +
                     (caller.role ? to_string(*caller.role) : "none"),
                 request.target);
}

}  // namespace onestep
