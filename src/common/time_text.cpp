#include "common/time_text.h"

#include <ctime>

namespace onestep {

std::optional<double> seconds_from_text(const std::string& text) {
  if (text.size() < 2 || text.size() > 6) return std::nullopt;
  const std::string digits = text.substr(0, text.size() - 1);
  if (digits.find_first_not_of("0123456789") != std::string::npos) return std::nullopt;
  const double count = std::stod(digits);
  switch (text.back()) {
    case 'd': return count * 86400;
    case 'h': return count * 3600;
    case 'm': return count * 60;
    case 's': return count;
    default: return std::nullopt;
  }
}

std::string utc_text(double time) {
  if (time == 0) return "-";
  const auto seconds = static_cast<std::time_t>(time);
  std::tm parts{};
  ::gmtime_r(&seconds, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%SZ", &parts);
  return text;
}

}  // namespace onestep
