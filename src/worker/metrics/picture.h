// Pictures a person looks at: panels joined under captions, and PNG files of the same bytes each
// time.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace onestep {

struct Picture {
  std::int64_t width = 0, height = 0;
  std::vector<std::uint8_t> rgb;  // height * width * 3, row by row
};

struct Panel {
  std::string
      caption;  // cut where it is wider than the panel; see bitmap_font.h for the letters it knows
  Picture picture;
};

// Side by side on white, each caption above its panel, tops aligned. Errors: kInternal when there
// is none.
Picture join_panels(const std::vector<Panel>& panels);

// A PNG without time stamps: equal pictures, equal bytes. Errors: kInternal.
std::string encode_png(const Picture& picture);
// Whole or not at all. Errors: kIo.
void write_png(const std::string& path, const Picture& picture);
// Any PNG, as 8-bit RGB; transparency shows white. Errors: kNotFound, kCorrupt.
Picture read_png(const std::string& path);

}  // namespace onestep
