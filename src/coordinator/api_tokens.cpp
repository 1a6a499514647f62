// Tokens over REST, for whoever administers a coordinator from afar.
#include <algorithm>
#include <cctype>

#include "common/config.h"
#include "common/error.h"
#include "common/log.h"
#include "coordinator/api_call.h"
#include "coordinator/job_view.h"
#include "coordinator/problem.h"

namespace onestep {
namespace {

using Json = nlohmann::ordered_json;

struct TokenRequest {
  Role role = Role::kRead;
  std::string label;
  double lifetime_s = 0;  // 0: for ever
};

// Errors: ConfigError with everything that is wrong.
TokenRequest token_request(const nlohmann::json& body) {
  ConfigReader reader(body, "");
  TokenRequest request;
  if (body.is_object() && !reader.has("role")) reader.violation("role", "expected read, submit or admin, found nothing");
  request.role = role_from_string(reader.choice("role", "read", {"read", "submit", "admin"})).value_or(Role::kRead);
  request.label = reader.text("label", "");
  const auto is_control = [](unsigned char c) { return std::iscntrl(c) != 0; };
  const auto begins_character = [](unsigned char c) { return (c & 0xc0) != 0x80; };  // of UTF-8
  const auto length = std::count_if(request.label.begin(), request.label.end(), begins_character);
  if (length > kMaxTokenLabel || std::any_of(request.label.begin(), request.label.end(), is_control)) {
    reader.violation("label", "expected at most " + std::to_string(kMaxTokenLabel) + " characters and none of control");
  }
  request.lifetime_s = static_cast<double>(reader.integer("lifetime_s", kTokenLifetime_s, 0, kMaxTokenLifetime_s));
  reader.finish("request body");
  return request;
}

std::string who(const Caller& caller) { return caller.token.empty() ? "a caller without a token" : "token " + caller.token; }

}  // namespace

HttpResponse Api::list_tokens(Call& call) {
  const double now = coordinator_.now();
  std::int64_t place = 0;  // by age; a token is never removed
  return api::page(call, coordinator_.tokens(), [&place](const TokenRecord&) { return ++place; },
                   [now](const TokenRecord& token) { return token_view(token, now); });
}

HttpResponse Api::add_token(Call& call) {
  nlohmann::json body;
  try {
    body = parse_json(call.request.body, "request body");
  } catch (const Error& error) {
    return problem(400, to_string(error.code()), error.what(), call.request.target);
  }
  const TokenRequest wanted = token_request(body);
  const NewToken token = coordinator_.add_token(wanted.role, wanted.label, wanted.lifetime_s);
  log_info("token " + token.record.id + " of role " + token.record.role + " made by " + who(call.caller));
  Json answer = token_view(token.record, coordinator_.now());
  answer["token"] = token.text;
  HttpResponse response = api::json_response(201, answer);
  response.headers["Location"] = "/api/v1/tokens/" + token.record.id;
  return response;
}

HttpResponse Api::revoke_token(Call& call) {
  // Where every call needs a token, one that may make others must be left.
  const TokenRecord token = coordinator_.revoke_token(call.id(), /*keeps_an_admin=*/options_.access.tokens);
  log_info("token " + token.id + " revoked by " + who(call.caller));
  return api::json_response(200, token_view(token, coordinator_.now()));
}

}  // namespace onestep
