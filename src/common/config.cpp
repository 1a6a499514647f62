#include "common/config.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <filesystem>
#include <iterator>
#include <limits>
#include <utility>

#include "common/durable_file.h"
#include "common/nearest.h"

namespace onestep {
namespace {

using nlohmann::json;

constexpr std::size_t kMaxShownCharacters = 60;
constexpr std::size_t kMaxDepth = 64;

// How a value is quoted in a message: its JSON, cut short; not-a-number by name.
std::string shown(const json& value) {
  if (value.is_number_float() && !std::isfinite(value.get<double>())) {
    return std::isnan(value.get<double>()) ? "nan" : "inf";
  }
  std::string text = value.dump(-1, ' ', true, json::error_handler_t::replace);
  if (text.size() > kMaxShownCharacters) text = text.substr(0, kMaxShownCharacters) + "...";
  return text;
}

std::string shown(double value) {
  char buffer[64];
  const auto result = std::to_chars(buffer, buffer + sizeof(buffer), value);
  return {buffer, result.ptr};
}

std::string integer_range(std::int64_t min, std::int64_t max) {
  if (max == std::numeric_limits<std::int64_t>::max()) return ">= " + std::to_string(min);
  return "from " + std::to_string(min) + " to " + std::to_string(max);
}

std::string number_range(double min, double max) {
  if (max >= std::numeric_limits<double>::max()) return ">= " + shown(min);
  return "from " + shown(min) + " to " + shown(max);
}

// True for a JSON integer (2, not 2.0) that lies in [min, max] without wrapping round.
bool is_number_within(const json& value, double min, double max) {
  if (!value.is_number()) return false;
  const auto number = value.get<double>();
  return std::isfinite(number) && number >= min && number <= max;
}

bool is_integer_within(const json& value, std::int64_t min, std::int64_t max) {
  if (value.is_number_unsigned()) {
    const auto number = value.get<std::uint64_t>();
    return max >= 0 && number <= static_cast<std::uint64_t>(max) &&
           (min < 0 || number >= static_cast<std::uint64_t>(min));
  }
  return value.is_number_integer() && value.get<std::int64_t>() >= min &&
         value.get<std::int64_t>() <= max;
}

std::string escaped(const std::string& key) {
  std::string text;
  for (const char c : key) text += c == '~' ? "~0" : c == '/' ? "~1" : std::string(1, c);
  return text;
}

template <class Strings>
std::string joined(const Strings& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

// Text of an error may end in a JSON document, which holds no broken UTF-8.
std::string printable(const std::string& text) {
  std::string result = text;
  for (char& c : result) {
    if (static_cast<unsigned char>(c) >= 0x80 || static_cast<unsigned char>(c) < 0x20) c = '?';
  }
  return result;
}

// "line 3, column 7" of the last of the first `num_read` characters.
std::string place_of(const std::string& text, std::size_t num_read) {
  const std::string before = text.substr(0, num_read == 0 ? 0 : num_read - 1);
  const std::size_t line_start =
      before.rfind('\n') == std::string::npos ? 0 : before.rfind('\n') + 1;
  return "line " + std::to_string(1 + std::count(before.begin(), before.end(), '\n')) +
         ", column " + std::to_string(before.size() - line_start + 1);
}

// A pointer into the text that tells the owner how far the parser has read.
class TrackedIterator {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  TrackedIterator(const char* current, const char** furthest)
      : current_(current), furthest_(furthest) {}
  reference operator*() const { return *current_; }
  TrackedIterator& operator++() {
    *furthest_ = ++current_;
    return *this;
  }
  TrackedIterator operator++(int) {
    TrackedIterator before = *this;
    ++*this;
    return before;
  }
  bool operator==(const TrackedIterator& other) const { return current_ == other.current_; }
  bool operator!=(const TrackedIterator& other) const { return current_ != other.current_; }

 private:
  const char* current_;
  const char** furthest_;
};

// Builds the document, and refuses duplicate keys and deep nesting while the place is still known.
class DocumentBuilder : public nlohmann::json_sax<json> {
 public:
  bool null() override { return value(nullptr); }
  bool boolean(bool v) override { return value(v); }
  bool number_integer(number_integer_t v) override { return value(v); }
  bool number_unsigned(number_unsigned_t v) override { return value(v); }
  bool number_float(number_float_t v, const string_t&) override { return value(v); }
  bool string(string_t& v) override { return value(std::move(v)); }
  bool binary(binary_t&) override { return fail("binary values are not JSON"); }
  bool start_object(std::size_t) override { return open(json::object()); }
  bool end_object() override { return close(); }
  bool start_array(std::size_t) override { return open(json::array()); }
  bool end_array() override { return close(); }
  bool key(string_t& v) override {
    if (stack_.back()->contains(v))
      return fail("duplicate key '" + v + "'; expected each key once");
    key_ = v;
    return true;
  }
  bool parse_error(std::size_t position, const std::string&,
                   const json::exception& error) override {
    // The library's own line and column are wrong after a line's end: only its words are taken.
    const std::string text = error.what();
    const std::size_t tag = text.find("] ");
    failure_ = tag == std::string::npos ? text : text.substr(tag + 2);
    if (failure_.starts_with("parse error")) failure_ = failure_.substr(failure_.find(": ") + 2);
    num_read_ = position;
    return false;
  }

  json document;
  [[nodiscard]] const std::string& failure() const { return failure_; }
  // Characters read when a syntax error was seen; 0 for any other failure.
  [[nodiscard]] std::size_t num_read() const { return num_read_; }

 private:
  json* place(json v) {
    if (stack_.empty()) {
      document = std::move(v);
      return &document;
    }
    json& parent = *stack_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(v));
      return &parent.back();
    }
    return &(parent[key_] = std::move(v));
  }
  bool value(json v) {
    place(std::move(v));
    return true;
  }
  bool open(json v) {
    if (stack_.size() == kMaxDepth) {
      return fail("nested too deeply; expected at most " + std::to_string(kMaxDepth) + " levels");
    }
    // Pointers into the document stay valid: a container grows only while it is on top of the
    // stack.
    stack_.push_back(place(std::move(v)));
    return true;
  }
  bool close() {
    stack_.pop_back();
    return true;
  }
  bool fail(std::string message) {
    failure_ = std::move(message);
    return false;
  }

  std::vector<json*> stack_;
  std::string key_;
  std::string failure_;
  std::size_t num_read_ = 0;
};

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts(1);
  for (const char c : text) {
    if (c == separator) {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  return parts;
}

}  // namespace

ConfigReader::ConfigReader(const json& object, std::string pointer)
    : object_(object), pointer_(std::move(pointer)) {
  if (object_.is_object()) return;
  violations_.push_back({pointer_, "expected an object, found " + shown(object_)});
  object_ = json::object();
}

bool ConfigReader::has(const std::string& key) const { return object_.contains(key); }

const json* ConfigReader::find(const std::string& key) {
  known_.insert(key);
  const auto found = object_.find(key);
  return found == object_.end() ? nullptr : &*found;
}

void ConfigReader::wrong_type(const std::string& key, const std::string& expected,
                              const json& found) {
  violation(key, "expected " + expected + ", found " + shown(found));
}

void ConfigReader::violation(const std::string& key, const std::string& message) {
  violations_.push_back({key.empty() ? pointer_ : pointer_ + "/" + key, message});
}

std::int64_t ConfigReader::integer(const std::string& key, std::int64_t fallback, std::int64_t min,
                                   std::int64_t max) {
  const json* value = find(key);
  if (value == nullptr) return fallback;
  if (is_integer_within(*value, min, max)) return value->get<std::int64_t>();
  wrong_type(key, "an integer " + integer_range(min, max), *value);
  return fallback;
}

double ConfigReader::number(const std::string& key, double fallback, double min, double max) {
  const json* value = find(key);
  if (value == nullptr) return fallback;
  if (is_number_within(*value, min, max)) return value->get<double>();
  wrong_type(key, "a finite number " + number_range(min, max), *value);
  return fallback;
}

bool ConfigReader::boolean(const std::string& key, bool fallback) {
  const json* value = find(key);
  if (value == nullptr) return fallback;
  if (value->is_boolean()) return value->get<bool>();
  wrong_type(key, "true or false", *value);
  return fallback;
}

std::string ConfigReader::text(const std::string& key, const std::string& fallback) {
  const json* value = find(key);
  if (value == nullptr) return fallback;
  if (value->is_string()) return value->get<std::string>();
  wrong_type(key, "a string", *value);
  return fallback;
}

std::string ConfigReader::choice(const std::string& key, const std::string& fallback,
                                 const std::vector<std::string>& allowed) {
  const json* value = find(key);
  if (value == nullptr) return fallback;
  if (value->is_string()) {
    const auto& word = value->get_ref<const std::string&>();
    if (std::find(allowed.begin(), allowed.end(), word) != allowed.end()) return word;
    const std::string hint = nearest(word, allowed);
    violation(key, "expected one of " + joined(allowed) + ", found " + shown(*value) +
                       (hint.empty() ? "" : "; did you mean '" + hint + "'?"));
    return fallback;
  }
  wrong_type(key, "one of " + joined(allowed), *value);
  return fallback;
}

std::vector<std::int64_t> ConfigReader::integers(const std::string& key,
                                                 const std::vector<std::int64_t>& fallback,
                                                 std::int64_t min, std::int64_t max) {
  const json* value = find(key);
  if (value == nullptr) return fallback;
  const bool good =
      value->is_array() && std::all_of(value->begin(), value->end(), [&](const json& item) {
        return is_integer_within(item, min, max);
      });
  if (good) return value->get<std::vector<std::int64_t>>();
  wrong_type(key, "a list of integers " + integer_range(min, max), *value);
  return fallback;
}

std::vector<double> ConfigReader::numbers(const std::string& key, const std::vector<double>& fallback,
                                          double min, double max) {
  const json* value = find(key);
  if (value == nullptr) return fallback;
  const bool good =
      value->is_array() && std::all_of(value->begin(), value->end(), [&](const json& item) {
        return is_number_within(item, min, max);
      });
  if (good) return value->get<std::vector<double>>();
  wrong_type(key, "a list of finite numbers " + number_range(min, max), *value);
  return fallback;
}

std::vector<std::string> ConfigReader::texts(const std::string& key,
                                             const std::vector<std::string>& fallback) {
  const json* value = find(key);
  if (value == nullptr) return fallback;
  const bool good =
      value->is_array() &&
      std::all_of(value->begin(), value->end(), [](const json& item) { return item.is_string(); });
  if (good) return value->get<std::vector<std::string>>();
  wrong_type(key, "a list of strings", *value);
  return fallback;
}

std::string ConfigReader::required_text(const std::string& key) {
  const json* value = find(key);
  if (value != nullptr && value->is_string() && !value->get_ref<const std::string&>().empty()) {
    return value->get<std::string>();
  }
  violation(key, "expected a string that is not empty, found " +
                     (value == nullptr ? "nothing (required)" : shown(*value)));
  return "";
}

std::int64_t ConfigReader::required_integer(const std::string& key, std::int64_t min,
                                            std::int64_t max) {
  if (find(key) != nullptr) return integer(key, min, min, max);
  violation(key, "expected an integer " + integer_range(min, max) + ", found nothing (required)");
  return min;
}

ConfigReader ConfigReader::object(const std::string& key) {
  const json* value = find(key);
  return {value == nullptr ? json::object() : *value, pointer_ + "/" + escaped(key)};
}

std::vector<ConfigReader> ConfigReader::objects(const std::string& key) {
  std::vector<ConfigReader> readers;
  const json* value = find(key);
  if (value == nullptr) return readers;
  if (!value->is_array()) {
    wrong_type(key, "a list of objects", *value);
    return readers;
  }
  for (std::size_t i = 0; i < value->size(); ++i) {
    readers.push_back({(*value)[i], pointer_ + "/" + escaped(key) + "/" + std::to_string(i)});
  }
  return readers;
}

void ConfigReader::absorb(ConfigReader& nested) {
  nested.reject_unknown_keys();
  violations_.insert(violations_.end(), nested.violations_.begin(), nested.violations_.end());
}

void ConfigReader::reject_unknown_keys() {
  for (const auto& [key, value] : object_.items()) {
    if (known_.contains(key)) continue;
    const std::string hint = nearest(key, known_);
    violation(escaped(key), hint.empty() ? "unknown key; expected one of: " + joined(known_)
                                         : "unknown key; did you mean '" + hint + "'?");
  }
}

void ConfigReader::finish(const std::string& where) {
  reject_unknown_keys();
  if (!violations_.empty()) throw ConfigError(where, violations_);
}

json parse_json(const std::string& text, const std::string& where) {
  DocumentBuilder builder;
  const char* furthest = text.data();
  const TrackedIterator first(text.data(), &furthest);
  const TrackedIterator last(text.data() + text.size(), &furthest);
  if (json::sax_parse(first, last, &builder)) return std::move(builder.document);
  const auto num_consumed = static_cast<std::size_t>(furthest - text.data());
  const std::size_t num_read = builder.num_read() > 0 ? builder.num_read() : num_consumed;
  throw Error(ErrorCode::kConfig, where + ": not a valid JSON document; " +
                                      place_of(text, num_read) + ": " +
                                      printable(builder.failure()));
}

json read_json_file(const std::string& path) { return parse_json(read_file(path), path); }

void apply_override(json& document, const std::string& assignment) {
  const auto refuse = [&assignment](const std::string& why) {
    throw Error(ErrorCode::kUsage, "--set " + assignment + ": " + why + "; expected key.key=value");
  };
  const std::size_t equals = assignment.find('=');
  if (equals == std::string::npos) refuse("there is no '='");
  const std::vector<std::string> parts = split(assignment.substr(0, equals), '.');
  const std::string text = assignment.substr(equals + 1);

  json* place = &document;
  for (const std::string& part : parts) {
    if (part.empty()) refuse("found an empty key");
    if (place->is_array()) {
      std::size_t index = 0;
      const auto end = part.data() + part.size();
      const auto [stop, error] = std::from_chars(part.data(), end, index);
      if (error != std::errc() || stop != end || index >= place->size()) {
        refuse("'" + part + "' is no index of a list of " + std::to_string(place->size()));
      }
      place = &(*place)[index];
      continue;
    }
    if (place->is_null()) *place = json::object();
    if (!place->is_object())
      refuse("'" + part + "' lies in " + shown(*place) + ", which has no fields");
    place = &(*place)[part];
  }
  try {
    *place = parse_json(text, "value");
  } catch (const Error&) {
    *place = text;  // a bare word is a string
  }
}

std::string resolve_path(const std::string& path, const std::string& base) {
  if (path.empty() || path.front() == '@') return path;
  std::string result = (std::filesystem::path(base) / path).lexically_normal().string();
  while (result.size() > 1 && result.back() == '/') result.pop_back();
  return result;
}

}  // namespace onestep
