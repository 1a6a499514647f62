#include "common/sealed_json.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "common/config.h"
#include "common/durable_file.h"
#include "common/error.h"
#include "common/hash.h"

namespace onestep {
namespace {

using nlohmann::json;

constexpr const char* kSealKey = "manifest_sha256";
constexpr std::size_t kMaxSealedShown = 120;

std::string canonical_text(const json& document) {
  try {
    return document.dump(2) + "\n";
  } catch (const json::exception& error) {
    throw Error(ErrorCode::kInternal,
                std::string("manifest: a text is not UTF-8: ") + error.what());
  }
}

std::string shown_sealed(const json& value) {
  std::string text = value.dump(-1, ' ', true, json::error_handler_t::replace);
  if (text.size() > kMaxSealedShown) text = text.substr(0, kMaxSealedShown) + "...";
  return text;
}

bool is_sha256(const std::string& text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

}  // namespace

std::string seal_json(json document) {
  document.erase(kSealKey);
  document[kSealKey] = sha256(canonical_text(document));
  return canonical_text(document);
}

json read_sealed_json(const std::string& path) {
  const std::string text = read_file(path);
  json document;
  try {
    document = parse_json(text, path);
  } catch (const Error& error) {
    throw Error(ErrorCode::kCorrupt, error.what());
  }
  StrictObject fields(document, path, "");
  const std::string expected = fields.sha256(kSealKey);
  json content = document;
  content.erase(kSealKey);
  const std::string found = sha256(canonical_text(content));
  if (found != expected) {
    throw Error(ErrorCode::kCorrupt, path + ": " + kSealKey + ": expected " + expected +
                                         ", found content with " + found);
  }
  const std::string canonical = canonical_text(document);
  if (text != canonical) {
    const auto difference =
        std::mismatch(text.begin(), text.end(), canonical.begin(), canonical.end());
    throw Error(ErrorCode::kCorrupt, path + ": expected the canonical text of the document (" +
                                         std::to_string(canonical.size()) +
                                         " bytes), found a difference at byte " +
                                         std::to_string(difference.first - text.begin()));
  }
  return content;
}

StrictObject::StrictObject(const json& object, std::string where, std::string pointer)
    : object_(&object), where_(std::move(where)), pointer_(std::move(pointer)) {
  if (!object.is_object()) {
    throw Error(ErrorCode::kCorrupt, where_ + ": " + (pointer_.empty() ? "/" : pointer_) +
                                         ": expected an object, found " + shown_sealed(object));
  }
}

void StrictObject::fail(const std::string& key, const std::string& message) const {
  throw Error(ErrorCode::kCorrupt, where_ + ": " + pointer_ + "/" + key + ": " + message);
}

const json& StrictObject::any(const char* key) {
  known_.insert(key);
  const auto found = object_->find(key);
  if (found == object_->end()) fail(key, "expected a value, found none");
  return *found;
}

const json& StrictObject::object(const char* key) {
  const json& value = any(key);
  if (!value.is_object()) fail(key, "expected an object, found " + shown_sealed(value));
  return value;
}

const json& StrictObject::array(const char* key) {
  const json& value = any(key);
  if (!value.is_array()) fail(key, "expected an array, found " + shown_sealed(value));
  return value;
}

std::int64_t StrictObject::integer(const char* key, std::int64_t min) {
  const json& value = any(key);
  const bool fits = value.is_number_unsigned()
                        ? value.get<std::uint64_t>() <=
                              static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())
                        : value.is_number_integer();
  if (!fits || value.get<std::int64_t>() < min) {
    fail(key, "expected an integer >= " + std::to_string(min) + ", found " + shown_sealed(value));
  }
  return value.get<std::int64_t>();
}

std::uint64_t StrictObject::natural(const char* key) {
  const json& value = any(key);
  // A document built in memory may hold a non-negative number as a signed one.
  if (!value.is_number_integer() ||
      (!value.is_number_unsigned() && value.get<std::int64_t>() < 0)) {
    fail(key, "expected an integer >= 0, found " + shown_sealed(value));
  }
  return value.get<std::uint64_t>();
}

std::string StrictObject::text(const char* key) {
  const json& value = any(key);
  if (!value.is_string()) fail(key, "expected a text, found " + shown_sealed(value));
  return value.get<std::string>();
}

std::string StrictObject::sha256(const char* key) {
  std::string value = text(key);
  if (!is_sha256(value)) fail(key, "expected 64 lower-case hex digits, found \"" + value + "\"");
  return value;
}

void StrictObject::require_text(const char* key, const std::string& expected) {
  const std::string found = text(key);
  if (found != expected) fail(key, "expected \"" + expected + "\", found \"" + found + "\"");
}

void StrictObject::require_integer(const char* key, std::int64_t expected) {
  const json& value = any(key);
  if (!value.is_number_integer() || value != json(expected)) {
    fail(key, "expected " + std::to_string(expected) + ", found " + shown_sealed(value));
  }
}

void StrictObject::finish() {
  for (const auto& [key, value] : object_->items()) {
    if (!known_.contains(key)) fail(key, "expected no such field, found " + shown_sealed(value));
  }
}

bool is_plain_file_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos &&
         name.find('\0') == std::string::npos;
}

}  // namespace onestep
