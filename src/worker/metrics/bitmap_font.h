// A font of 5x7 pixels for captions.
#pragma once

#include <array>
#include <cstdint>

namespace onestep {

constexpr std::int64_t kGlyphWidth = 5;
constexpr std::int64_t kGlyphHeight = 7;

// Rows from the top; bit 4 is the leftmost pixel.
using Glyph = std::array<std::uint8_t, 7>;

// Letters, digits, space and . , : ; - + = _ / % ( ) '; anything else gets an empty box.
Glyph glyph_of(char character);

}  // namespace onestep
