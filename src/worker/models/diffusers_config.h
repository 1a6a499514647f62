// What the readers of config.json files of diffusers and transformers share: keys with one value that is supported.
#pragma once

#include <nlohmann/json.hpp>

#include <string>
#include <vector>

#include "common/config.h"

namespace onestep {

// A key that may be absent, or must have one of these values: anything else would be another network.
struct FixedKey {
  const char* key;
  const char* allowed;  // JSON array of the values: R"([false, null])"
};

// Records a violation for each key of `document` whose value is not allowed.
void check_fixed_keys(ConfigReader& reader, const nlohmann::json& document, const std::vector<FixedKey>& keys);
// Keys that change nothing here, whatever their value; and every key that starts with '_' but _class_name.
void know_harmless_keys(ConfigReader& reader, const nlohmann::json& document, const std::vector<const char*>& keys);
// Records a violation for each key that is absent: its default is another network's.
void require_keys(ConfigReader& reader, const std::vector<const char*>& keys);

}  // namespace onestep
