// Times and lengths of time as people write and read them.
#pragma once

#include <optional>
#include <string>

namespace onestep {

// "90d", "12h", "30m", "45s" -> seconds; at most five digits; nullopt for anything else.
std::optional<double> seconds_from_text(const std::string& text);

// Unix seconds -> "2026-01-31 12:00:00Z"; "-" for 0.
std::string utc_text(double time);

}  // namespace onestep
