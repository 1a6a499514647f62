#include "cli/token_commands.h"

#include <algorithm>
#include <iostream>
#include <optional>

#include "common/error.h"
#include "common/secret.h"
#include "common/time_text.h"

namespace onestep {
namespace {

using nlohmann::json;

std::string token_target(const std::string& id) { return "/api/v1/tokens/" + percent_encode(id); }

std::string expiry(const json& token) { return token.at("expires").is_null() ? "never" : utc_text(token.at("expires")); }

json token_request(const DataToolOptions& options) {
  json request = {{"role", options.role}, {"label", options.label}};
  if (options.expires == "never") {
    request["lifetime_s"] = 0;
  } else if (!options.expires.empty()) {
    const std::optional<double> lifetime = seconds_from_text(options.expires);
    if (!lifetime || *lifetime == 0) {
      throw Error(ErrorCode::kUsage, "--expires: expected a time such as 90d, 12h or 30m, or never, found \"" + options.expires + "\"");
    }
    request["lifetime_s"] = static_cast<std::int64_t>(*lifetime);
  }
  return request;
}

}  // namespace

void add_token(const Client& client, const DataToolOptions& options, bool as_json) {
  json token = client.post("/api/v1/tokens", token_request(options));
  const std::string text = token.at("token"), id = token.at("id");
  if (!options.out.empty()) {
    try {
      write_secret_file(options.out, text + "\n");
    } catch (const Error&) {  // what can't be handed over must not open anything
      client.request("DELETE", token_target(id));
      throw;
    }
    token.erase("token");
  }
  if (as_json) {
    std::cout << token.dump() << "\n";
    return;
  }
  std::cerr << "token " << id << " of role " << token.at("role").get<std::string>() << ", expires " << expiry(token)
            << (options.out.empty() ? "; it is shown this once:" : "; written to " + options.out) << "\n";
  if (options.out.empty()) std::cout << text << "\n";
}

void list_tokens(const Client& client, bool as_json) {
  json items = json::array();
  std::string target = "/api/v1/tokens";
  while (!target.empty()) {
    const json page = client.get(target);
    for (const json& token : page.at("items")) items.push_back(token);
    target = page.at("next").is_null() ? "" : page.at("next").get<std::string>();
  }
  if (as_json) {
    std::cout << json{{"items", items}}.dump() << "\n";
    return;
  }
  if (items.empty()) std::cout << "no tokens\n";
  for (const json& token : items) {
    const std::string role = token.at("role"), label = token.at("label");
    std::cout << token.at("id").get<std::string>() << "  " << role << std::string(8 - std::min<std::size_t>(8, role.size()), ' ')
              << token.at("state").get<std::string>() << "  created " << utc_text(token.at("created")) << "  expires " << expiry(token)
              << (label.empty() ? "" : "  " + label) << "\n";
  }
}

void revoke_token(const Client& client, const DataToolOptions& options, bool as_json) {
  const ClientResponse answer = client.request("DELETE", token_target(options.id));
  if (as_json) {
    std::cout << json{{"id", options.id}, {"state", json::parse(answer.body).at("state")}}.dump() << "\n";
  } else {
    std::cout << "token " << options.id << " revoked\n";
  }
}

}  // namespace onestep
