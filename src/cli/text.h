// Numbers, durations and tables as people read them. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace onestep {

std::string with_thousands(std::int64_t value);        // "12,345"
std::string significant(double value, int digits);     // 0.012345, 3 -> "0.0123"; 12345.6 -> "12346"
std::string clock_time(double seconds);                // "0:07", "12:34", "1:02:03"
std::string bar(double fraction, int width);           // "[#####-----]", fraction clamped to 0..1

// Columns as wide as their widest cell, two spaces apart; the first is left-aligned, those from `first_right` on
// right-aligned. Rows may be shorter than the header.
std::string table(const std::vector<std::vector<std::string>>& rows, std::size_t first_right);
// Columns on a screen: UTF-8 code points, without colours.
std::size_t display_width(const std::string& text);

// A job's state, in its colour where colours are wanted.
std::string coloured_state(const std::string& state, bool colours);
// On a terminal that is not "dumb", unless NO_COLOR is set to something (no-color.org).
bool wants_colours(bool is_terminal, const char* no_color, const char* term);

}  // namespace onestep
