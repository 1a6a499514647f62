// The parts of a request's target: path segments and query fields, decoded and checked.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/error.h"
#include "common/percent_encoding.h"

namespace onestep {

// What is wrong with a query, field by field: `pointer` is a field's name.
class QueryError : public Error {
 public:
  QueryError(const std::string& message, std::vector<Violation> violations)
      : Error(ErrorCode::kUsage, message), violations_(std::move(violations)) {}
  [[nodiscard]] const std::vector<Violation>& violations() const { return violations_; }

 private:
  std::vector<Violation> violations_;
};

// Query fields, each read by name; finish() names what is left over and whatever was wrong.
class RequestQuery {
 public:
  // Without the "?". Errors: kUsage for a bad escape, a field without a name, or one given twice.
  explicit RequestQuery(std::string_view text);

  std::string text(const std::string& name, const std::string& fallback);
  std::int64_t integer(const std::string& name, std::int64_t fallback, std::int64_t min,
                       std::int64_t max);
  [[nodiscard]] const std::map<std::string, std::string>& fields() const { return fields_; }
  [[nodiscard]] bool has(const std::string& name) const { return fields_.contains(name); }
  void violation(const std::string& name, const std::string& message);
  // Errors: QueryError listing every violation and unknown field.
  void finish() const;

 private:
  std::map<std::string, std::string> fields_;
  std::set<std::string> known_;
  std::vector<Violation> violations_;
};

}  // namespace onestep
