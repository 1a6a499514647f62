#include "worker/models/diffusers_config.h"

#include <algorithm>

namespace onestep {

using nlohmann::json;

void check_fixed_keys(ConfigReader& reader, const json& document, const std::vector<FixedKey>& keys) {
  for (const FixedKey& fixed : keys) {
    reader.know(fixed.key);
    const auto found = document.find(fixed.key);
    if (found == document.end()) continue;
    const json allowed = json::parse(fixed.allowed);
    if (std::find(allowed.begin(), allowed.end(), *found) != allowed.end()) continue;
    std::string expected;
    for (const json& value : allowed) expected += (expected.empty() ? "" : " or ") + value.dump();
    reader.violation(fixed.key, "expected " + expected + ", found " + found->dump());
  }
}

void know_harmless_keys(ConfigReader& reader, const json& document, const std::vector<const char*>& keys) {
  for (const char* key : keys) reader.know(key);
  for (const auto& item : document.items()) {
    if (item.key().starts_with("_") && item.key() != "_class_name") reader.know(item.key());
  }
}

void require_keys(ConfigReader& reader, const std::vector<const char*>& keys) {
  for (const char* key : keys) {
    if (!reader.has(key)) reader.violation(key, "expected a value, found nothing (required)");
  }
}

}  // namespace onestep
