// tests/golden/metrics.json: what the published packages make of keyed features.
#pragma once

#include <fstream>

#include <nlohmann/json.hpp>

namespace onestep {

inline nlohmann::json golden_metrics() {
  std::ifstream file(ONESTEP_SOURCE_DIR "/tests/golden/metrics.json");
  return nlohmann::json::parse(file);
}

}  // namespace onestep
