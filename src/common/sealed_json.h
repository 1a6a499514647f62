// JSON manifests that carry their own digest: one text per document, so that any changed byte
// shows.
#pragma once

#include <nlohmann/json.hpp>

#include <cstdint>
#include <set>
#include <string>

namespace onestep {

// Adds the field "manifest_sha256", the SHA-256 of the text without it; two spaces of indent,
// sorted keys, one final newline.
std::string seal_json(nlohmann::json document);
// The document without that field. Errors: kNotFound, kIo; kCorrupt for a syntax error, a wrong
// digest or any other spelling of the text.
nlohmann::json read_sealed_json(const std::string& path);

// Reads an object of such a document field by field and stops at the first wrong one.
// Errors of all methods: kCorrupt naming `where`, the JSON pointer, expected and found.
class StrictObject {
 public:
  // `object` must outlive the reader.
  StrictObject(const nlohmann::json& object, std::string where, std::string pointer);
  const nlohmann::json& any(const char* key);
  const nlohmann::json& object(const char* key);
  const nlohmann::json& array(const char* key);
  std::int64_t integer(const char* key, std::int64_t min);
  std::uint64_t natural(const char* key);
  std::string text(const char* key);
  std::string sha256(const char* key);  // 64 lower-case hex digits
  void require_text(const char* key, const std::string& expected);
  void require_integer(const char* key, std::int64_t expected);
  void finish();  // refuses keys nobody asked for
  [[noreturn]] void fail(const std::string& key, const std::string& message) const;

 private:
  const nlohmann::json* object_;
  std::string where_;
  std::string pointer_;
  std::set<std::string> known_;
};

// A plain name in the same folder: not empty, no '/', not "." or "..".
bool is_plain_file_name(const std::string& name);

}  // namespace onestep
