// Parts of a URL: path segments and query values.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace onestep {

// "a b/c" -> "a%20b%2Fc".
std::string percent_encode(std::string_view text);
// "%41+" -> "A+". nullopt for an incomplete escape or an escaped zero byte.
std::optional<std::string> percent_decode(std::string_view text);

}  // namespace onestep
