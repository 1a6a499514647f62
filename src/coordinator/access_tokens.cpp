#include "coordinator/access_tokens.h"

#include <array>
#include <utility>

#include "common/hash.h"
#include "common/secret.h"

namespace onestep {
namespace {

constexpr const char* kTokenPrefix = "onestep_";
constexpr std::size_t kIdDigits = 8, kSecretDigits = 64;
constexpr std::array<std::pair<Role, const char*>, 3> kRoles = {
    {{Role::kRead, "read"}, {Role::kSubmit, "submit"}, {Role::kAdmin, "admin"}}};

// The id within a text that has a token's shape; "" else.
std::string id_of(const std::string& text) {
  const std::size_t start = std::string(kTokenPrefix).size();
  if (!text.starts_with(kTokenPrefix) || text.size() != start + kIdDigits + 1 + kSecretDigits) return "";
  return text[start + kIdDigits] == '_' ? text.substr(start, kIdDigits) : "";
}

}  // namespace

const char* to_string(Role role) { return kRoles.at(static_cast<std::size_t>(role)).second; }

std::optional<Role> role_from_string(const std::string& name) {
  for (const auto& [role, known] : kRoles) {
    if (name == known) return role;
  }
  return std::nullopt;
}

NewToken make_token(Role role, const std::string& label, double now, double expires) {
  NewToken token;
  token.record = {.id = random_hex(kIdDigits / 2),
                  .role = to_string(role),
                  .label = label,
                  .hash = "",
                  .created = now,
                  .expires = expires,
                  .revoked = 0};
  token.text = kTokenPrefix + token.record.id + "_" + random_hex(kSecretDigits / 2);
  token.record.hash = sha256(token.text);
  return token;
}

TokenVerdict judge_token(Store& store, const std::string& text, double now) {
  const std::string id = id_of(text);
  const std::optional<TokenRecord> found = id.empty() ? std::nullopt : store.token(id);
  const std::string expected = found ? found->hash : sha256("");
  const bool same = equal_in_constant_time(sha256(text), expected);
  if (!found || !same) return {std::nullopt, "", "the token is unknown"};
  if (found->revoked > 0) return {std::nullopt, id, "the token " + id + " was revoked"};
  if (found->expires > 0 && found->expires <= now) return {std::nullopt, id, "the token " + id + " has expired"};
  return {role_from_string(found->role), id, ""};
}

const char* token_state(const TokenRecord& token, double now) {
  if (token.revoked > 0) return "revoked";
  return token.expires > 0 && token.expires <= now ? "expired" : "valid";
}

int num_valid_tokens(Store& store, double now) {
  int count = 0;
  for (const TokenRecord& token : store.tokens()) {
    if (token_state(token, now) == std::string("valid")) ++count;
  }
  return count;
}

}  // namespace onestep
