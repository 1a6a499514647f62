#include "coordinator/request_query.h"

#include <algorithm>
#include <charconv>

namespace onestep {

RequestQuery::RequestQuery(std::string_view text) {
  while (!text.empty()) {
    const std::string_view field = text.substr(0, text.find('&'));
    text.remove_prefix(std::min(text.size(), field.size() + 1));
    const std::size_t equals = field.find('=');
    const auto name = percent_decode(field.substr(0, equals));
    const auto value =
        percent_decode(equals == std::string_view::npos ? "" : field.substr(equals + 1));
    if (!name || !value || name->empty()) {
      throw Error(ErrorCode::kUsage,
                  "query: \"" + std::string(field) + "\": expected name=value, percent-encoded");
    }
    if (!fields_.emplace(*name, *value).second) {
      throw Error(ErrorCode::kUsage, "query: \"" + *name + "\" is given twice");
    }
  }
}

std::string RequestQuery::text(const std::string& name, const std::string& fallback) {
  known_.insert(name);
  const auto field = fields_.find(name);
  return field == fields_.end() ? fallback : field->second;
}

std::int64_t RequestQuery::integer(const std::string& name, std::int64_t fallback, std::int64_t min,
                                   std::int64_t max) {
  known_.insert(name);
  const auto field = fields_.find(name);
  if (field == fields_.end()) return fallback;
  const std::string& digits = field->second;
  std::int64_t value = 0;
  const auto [end, failure] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (failure != std::errc() || end != digits.data() + digits.size() || value < min ||
      value > max) {
    violation(name, "expected an integer from " + std::to_string(min) + " to " +
                        std::to_string(max) + ", found \"" + digits + "\"");
    return fallback;
  }
  return value;
}

void RequestQuery::violation(const std::string& name, const std::string& message) {
  violations_.push_back({name, message});
}

void RequestQuery::finish() const {
  std::vector<Violation> wrong = violations_;
  for (const auto& [name, value] : fields_) {
    if (!known_.contains(name)) wrong.push_back({name, "unknown"});
  }
  if (wrong.empty()) return;
  std::string text;
  for (const Violation& violation : wrong) text += "; " + violation.pointer + ": " + violation.message;
  std::string allowed;
  for (const std::string& name : known_) allowed += (allowed.empty() ? "" : ", ") + name;
  throw QueryError("query" + text + "; fields here: " + (allowed.empty() ? "none" : allowed), std::move(wrong));
}

}  // namespace onestep
