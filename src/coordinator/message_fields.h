// Typed access to the fields of a telemetry message's body.
#pragma once

#include <nlohmann/json.hpp>

#include <cstdint>
#include <string>

namespace onestep {

// `message` names the message in errors ("checkpoint_committed").
// Errors: kCorrupt naming message, field, expected, found.
std::int64_t integer_field(const nlohmann::json& body, const std::string& message, const char* key,
                           std::int64_t min, std::int64_t max);
std::string text_field(const nlohmann::json& body, const std::string& message, const char* key);

}  // namespace onestep
