#include "cli/text.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace onestep {

std::string with_thousands(std::int64_t value) {
  const std::string digits = std::to_string(value);
  const std::size_t first = value < 0 ? 1 : 0;
  std::string text;
  for (std::size_t position = 0; position < digits.size(); ++position) {
    if (position > first && (digits.size() - position) % 3 == 0) text += ',';
    text += digits[position];
  }
  return text;
}

std::string significant(double value, int digits) {
  if (!std::isfinite(value)) return "nan";
  const int magnitude = value == 0.0 ? 0 : static_cast<int>(std::floor(std::log10(std::fabs(value))));
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", std::clamp(digits - 1 - magnitude, 0, 9), value);
  return text;
}

std::string clock_time(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0) return "-";
  const auto total = static_cast<std::int64_t>(std::llround(seconds));
  char text[64];
  if (total >= 3600) {
    std::snprintf(text, sizeof text, "%lld:%02lld:%02lld", static_cast<long long>(total / 3600),
                  static_cast<long long>(total / 60 % 60), static_cast<long long>(total % 60));
  } else {
    std::snprintf(text, sizeof text, "%lld:%02lld", static_cast<long long>(total / 60),
                  static_cast<long long>(total % 60));
  }
  return text;
}

std::string bar(double fraction, int width) {
  const double clamped = std::isfinite(fraction) ? std::clamp(fraction, 0.0, 1.0) : 0.0;
  const int full = static_cast<int>(clamped * width);
  std::string text(static_cast<std::size_t>(width) + 2, '-');
  std::fill_n(text.begin() + 1, full, '#');
  text.front() = '[';
  text.back() = ']';
  return text;
}

std::size_t display_width(const std::string& text) {
  std::size_t width = 0;
  bool colour = false;  // within "\033[...m", which takes no room
  for (const unsigned char c : text) {
    if (c == '\033') colour = true;
    if (!colour && (c & 0xC0) != 0x80) ++width;
    if (c == 'm') colour = false;
  }
  return width;
}

std::string coloured_state(const std::string& state, bool colours) {
  if (!colours) return state;
  const char* code = state == "succeeded"                               ? "32"   // green
                     : state == "failed" || state == "blocked"          ? "31"   // red
                     : state == "cancelled" || state == "interrupted"   ? "33"   // yellow
                     : state == "running"                               ? "36"   // cyan
                                                                        : nullptr;
  return code == nullptr ? state : std::string("\033[") + code + "m" + state + "\033[0m";
}

bool wants_colours(bool is_terminal, const char* no_color, const char* term) {
  const bool refused = no_color != nullptr && *no_color != '\0';
  return is_terminal && !refused && term != nullptr && std::string(term) != "dumb";
}

std::string table(const std::vector<std::vector<std::string>>& rows, std::size_t first_right) {
  std::vector<std::size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()), 0);
    for (std::size_t column = 0; column < row.size(); ++column) {
      widths[column] = std::max(widths[column], display_width(row[column]));
    }
  }
  std::string text;
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t column = 0; column < row.size(); ++column) {
      const std::string padding(widths[column] - display_width(row[column]), ' ');
      line += column ? "  " : "";
      line += column >= first_right ? padding + row[column] : row[column] + padding;
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

}  // namespace onestep
