// Tokens that people and programs show to REST: made, looked up, revoked. Only their digests are stored.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "coordinator/store.h"

namespace onestep {

// Each may do what those before it may: look; submit and steer jobs; back up and the like.
enum class Role { kRead, kSubmit, kAdmin };
const char* to_string(Role role);
std::optional<Role> role_from_string(const std::string& name);

constexpr std::int64_t kTokenLifetime_s = 90 * 86400;  // where nothing else is said
constexpr std::int64_t kMaxTokenLifetime_s = 3650LL * 86400;
constexpr int kMaxTokenLabel = 100;  // characters

// "onestep_<id: 8 hex digits>_<64 hex digits: 256 random bits>". The text is shown once and never stored.
struct NewToken {
  TokenRecord record;
  std::string text;
};
// expires: Unix seconds, 0: never.
NewToken make_token(Role role, const std::string& label, double now, double expires);

struct TokenVerdict {
  std::optional<Role> role;
  std::string id;      // of the token, once it is known to be one of ours
  std::string reason;  // why not, without the token
};
// Compares digests in constant time; an unknown id costs as much as a wrong secret.
TokenVerdict judge_token(Store& store, const std::string& text, double now);

// "valid", "expired" or "revoked".
const char* token_state(const TokenRecord& token, double now);

// Those that open something now.
int num_valid_tokens(Store& store, double now);

}  // namespace onestep
