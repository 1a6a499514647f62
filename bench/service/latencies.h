// What was measured, in percentiles.
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <vector>

namespace onestep {

using Clock = std::chrono::steady_clock;

inline double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// `seconds` in any order; figures in ms.
inline nlohmann::json latencies(std::vector<double> seconds) {
  if (seconds.empty()) return {{"count", 0}};
  std::sort(seconds.begin(), seconds.end());
  const auto at = [&](double share) {
    const auto index = static_cast<std::size_t>(share * static_cast<double>(seconds.size() - 1));
    return std::round(seconds[index] * 1e6) / 1e3;
  };
  return {{"count", seconds.size()}, {"p50_ms", at(0.5)}, {"p99_ms", at(0.99)}, {"max_ms", at(1.0)}};
}

}  // namespace onestep
