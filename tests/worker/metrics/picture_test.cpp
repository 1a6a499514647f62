#include "worker/metrics/picture.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "common/durable_file.h"
#include "common/error.h"
#include "worker/metrics/bitmap_font.h"

namespace onestep {
namespace {

Picture gradient(std::int64_t width, std::int64_t height) {
  Picture picture{width, height, {}};
  for (std::int64_t i = 0; i < width * height * 3; ++i)
    picture.rgb.push_back(static_cast<std::uint8_t>(7 * i));
  return picture;
}

std::string temporary(const std::string& name) { return ::testing::TempDir() + name; }

TEST(Picture, PngReadsBackAsItWasWritten) {
  const auto path = temporary("picture_round_trip.png");
  for (const auto& [width, height] : {std::pair{1, 1}, {17, 5}, {200, 3}}) {
    const auto picture = gradient(width, height);
    write_png(path, picture);
    const auto found = read_png(path);
    EXPECT_EQ(found.width, width);
    EXPECT_EQ(found.height, height);
    EXPECT_EQ(found.rgb, picture.rgb);
  }
  std::filesystem::remove(path);
}

TEST(Picture, EqualPicturesHaveEqualBytes) {
  const auto first = encode_png(gradient(40, 30));
  EXPECT_EQ(first, encode_png(gradient(40, 30)));
  EXPECT_NE(first, encode_png(gradient(30, 40)));
  EXPECT_EQ(first.find("tIME"), std::string::npos);
}

TEST(Picture, RefusesWhatIsNoWholePng) {
  const auto path = temporary("picture_damaged.png");
  EXPECT_THROW(read_png(temporary("absent.png")), Error);
  const auto whole = encode_png(gradient(40, 30));
  for (const std::string& content : {std::string("GIF89a"), std::string(),
                                     whole.substr(0, whole.size() / 2), whole.substr(0, 20)}) {
    std::ofstream(path, std::ios::binary | std::ios::trunc) << content;
    try {
      read_png(path);
      ADD_FAILURE() << "no error for " << content.size() << " bytes";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kCorrupt) << error.what();
    }
  }
  auto flipped = whole;
  flipped[flipped.size() / 2] = static_cast<char>(flipped[flipped.size() / 2] ^ 4);
  std::ofstream(path, std::ios::binary | std::ios::trunc) << flipped;
  EXPECT_THROW(read_png(path), Error);
  std::filesystem::remove(path);
}

TEST(Picture, PanelsStandSideBySideUnderTheirCaptions) {
  const auto tall = gradient(60, 20), low = gradient(30, 10);
  const auto joined = join_panels({{"real", tall}, {"student", low}});
  EXPECT_EQ(joined.width, 8 + 60 + 8 + 30 + 8);
  const std::int64_t top = 8 + 14 + 8;
  EXPECT_EQ(joined.height, top + 20 + 8);
  ASSERT_EQ(std::ssize(joined.rgb), joined.width * joined.height * 3);
  const auto row = [&](std::int64_t x, std::int64_t y, std::int64_t width) {
    const auto begin = joined.rgb.begin() + (y * joined.width + x) * 3;
    return std::vector<std::uint8_t>(begin, begin + width * 3);
  };
  for (std::int64_t y = 0; y < 20; ++y) {
    ASSERT_TRUE(std::equal(tall.rgb.begin() + y * 180, tall.rgb.begin() + (y + 1) * 180,
                           row(8, top + y, 60).begin()));
  }
  for (std::int64_t y = 0; y < 10; ++y) {
    ASSERT_TRUE(std::equal(low.rgb.begin() + y * 90, low.rgb.begin() + (y + 1) * 90,
                           row(76, top + y, 30).begin()));
  }
  EXPECT_EQ(row(76, top + 10, 30), std::vector<std::uint8_t>(90, 255));  // white below the low one

  // The first letter of the first caption, each font pixel two screen pixels wide.
  const Glyph r = glyph_of('r');
  for (std::int64_t y = 0; y < 14; ++y) {
    for (std::int64_t x = 0; x < 10; ++x) {
      const bool ink = ((r[static_cast<std::size_t>(y / 2)] >> (4 - x / 2)) & 1) != 0;
      EXPECT_EQ(row(8 + x, 8 + y, 1)[0], ink ? 20 : 255);
    }
  }
  // "student" is 7 * 12 - 2 pixels wide: cut to the letters that fit in 30, and nothing beyond its
  // panel.
  for (std::int64_t y = 0; y < 14; ++y)
    EXPECT_EQ(row(106, 8 + y, 8), std::vector<std::uint8_t>(24, 255));
}

TEST(Picture, JoiningNothingIsAnError) { EXPECT_THROW(join_panels({}), Error); }

TEST(BitmapFont, GlyphsDiffer) {
  const std::string known =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.,:;-+=_/%()' ";
  for (std::size_t i = 0; i < known.size(); ++i) {
    EXPECT_NE(glyph_of(known[i]), glyph_of('\x01')) << known[i];
    for (std::size_t j = 0; j < i; ++j)
      EXPECT_NE(glyph_of(known[i]), glyph_of(known[j])) << known[i] << known[j];
  }
  EXPECT_EQ(glyph_of('~'), glyph_of('\xff'));
}

}  // namespace
}  // namespace onestep
