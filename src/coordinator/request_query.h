// The parts of a request's target: path segments and query fields, decoded and checked.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "common/error.h"

namespace onestep {

// "%41+" -> "A+". nullopt for an incomplete escape or an escaped zero byte.
std::optional<std::string> percent_decode(std::string_view text);

// Query fields, each read once by name; finish() names what is left over and whatever was wrong.
class RequestQuery {
 public:
  // Without the "?". Errors: kUsage for a bad escape, a field without a name, or one given twice.
  explicit RequestQuery(std::string_view text);

  std::string text(const std::string& name, const std::string& fallback);
  std::int64_t integer(const std::string& name, std::int64_t fallback, std::int64_t min,
                       std::int64_t max);
  [[nodiscard]] bool has(const std::string& name) const { return fields_.contains(name); }
  void violation(const std::string& name, const std::string& message);
  // Errors: kUsage listing every violation and unknown field.
  void finish() const;

 private:
  std::map<std::string, std::string> fields_;
  std::set<std::string> known_;
  std::vector<Violation> violations_;
};

}  // namespace onestep
