// Reads one JSON object field by field and collects everything that is wrong with it.
#pragma once

#include <nlohmann/json.hpp>

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "common/error.h"

namespace onestep {

// Usage: construct over the object, call the typed getters, then finish(). A getter that finds something wrong
// records a Violation and returns the fallback, so one pass reports all problems. Not thread-safe.
class ConfigReader {
 public:
  // `pointer` is the JSON pointer of `object` within the whole document ("" at the root).
  // A value that is no object is itself a violation; all getters then return fallbacks.
  ConfigReader(const nlohmann::json& object, std::string pointer);

  [[nodiscard]] bool has(const std::string& key) const;

  // Optional fields: absent -> `fallback`.
  std::int64_t integer(const std::string& key, std::int64_t fallback, std::int64_t min, std::int64_t max);
  double number(const std::string& key, double fallback, double min, double max);
  bool boolean(const std::string& key, bool fallback);
  std::string text(const std::string& key, const std::string& fallback);
  std::string choice(const std::string& key, const std::string& fallback,
                     const std::vector<std::string>& allowed);
  std::vector<std::int64_t> integers(const std::string& key, const std::vector<std::int64_t>& fallback,
                                     std::int64_t min, std::int64_t max);
  std::vector<double> numbers(const std::string& key, const std::vector<double>& fallback, double min, double max);
  std::vector<std::string> texts(const std::string& key, const std::vector<std::string>& fallback);

  // Required fields: absence is a violation.
  std::string required_text(const std::string& key);
  std::int64_t required_integer(const std::string& key, std::int64_t min, std::int64_t max);

  // A nested object; an absent one reads as {} so that its defaults apply.
  ConfigReader object(const std::string& key);
  // A list of objects; an absent one reads as none.
  std::vector<ConfigReader> objects(const std::string& key);
  // Takes over what a nested reader found; call after its last getter (it is finished here).
  void absorb(ConfigReader& nested);

  // `key`: a field, or a relative JSON pointer ("dmd/batch"); "" means the object itself.
  void violation(const std::string& key, const std::string& message);
  // A key that the caller reads by other means.
  void know(const std::string& key) { known_.insert(key); }

  // Records every key nobody asked for, each with the nearest known key as a hint.
  void reject_unknown_keys();
  [[nodiscard]] const std::vector<Violation>& violations() const { return violations_; }
  // reject_unknown_keys(), then throws ConfigError(where, ...) if anything is wrong.
  void finish(const std::string& where);

 private:
  const nlohmann::json* find(const std::string& key);
  void wrong_type(const std::string& key, const std::string& expected, const nlohmann::json& found);

  nlohmann::json object_;
  std::string pointer_;
  std::set<std::string> known_;
  std::vector<Violation> violations_;
};

// Reads and parses a JSON file. Errors: kNotFound; kConfig with line and column of the first syntax error, or for
// a duplicate key.
nlohmann::json read_json_file(const std::string& path);
// The same for a text; `where` names it in errors. Duplicate keys and depth over 64 are refused.
nlohmann::json parse_json(const std::string& text, const std::string& where);

// "--set distill.dmd.batch=64": sets one existing or new field by its dotted path; the value is JSON if it
// parses as JSON, else a string. Errors: kUsage.
void apply_override(nlohmann::json& document, const std::string& assignment);

// `path` made absolute against `base` (itself absolute) and lexically normal; "" and "@name" stay as they are.
std::string resolve_path(const std::string& path, const std::string& base);

}  // namespace onestep
