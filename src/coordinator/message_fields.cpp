#include "coordinator/message_fields.h"

#include "common/error.h"

namespace onestep {
namespace {

using nlohmann::json;

[[noreturn]] void wrong_field(const json& body, const std::string& message, const char* key,
                              const std::string& expected) {
  const auto value = body.find(key);
  const std::string found = value == body.end() ? "nothing" : value->dump();
  throw Error(ErrorCode::kCorrupt,
              message + " message: field " + key + "; expected " + expected + ", found " + found);
}

}  // namespace

std::int64_t integer_field(const json& body, const std::string& message, const char* key,
                           std::int64_t min, std::int64_t max) {
  const auto value = body.find(key);
  if (value != body.end() && value->is_number_integer()) {
    // An unsigned value over the signed range would read as a negative one.
    const bool fits = !value->is_number_unsigned() ||
                      value->get<std::uint64_t>() <= static_cast<std::uint64_t>(INT64_MAX);
    const auto number = value->get<std::int64_t>();
    if (fits && number >= min && number <= max) return number;
  }
  wrong_field(body, message, key,
              "an integer " + std::to_string(min) + " to " + std::to_string(max));
}

std::string text_field(const json& body, const std::string& message, const char* key) {
  const auto value = body.find(key);
  if (value != body.end() && value->is_string()) return value->get<std::string>();
  wrong_field(body, message, key, "a text");
}

}  // namespace onestep
