#include "common/image_decode.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "common/image_resize.h"
#include "common/safetensors_file.h"
#include "support/files.h"

namespace onestep {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

const std::string kFolder = std::string(ONESTEP_SOURCE_DIR) + "/tests/golden/pictures/";

std::vector<std::byte> bytes_of(const std::string& content) {
  const auto* data = reinterpret_cast<const std::byte*>(content.data());
  return {data, data + content.size()};
}

DecodedImage decode_file(const std::string& name) {
  return decode_image(bytes_of(slurp(kFolder + name)), name);
}

// What Pillow made of the same file: tools/golden/make_pictures_golden.py.
void expect_golden(const DecodedImage& image, const std::string& name) {
  static const SafetensorsFile golden(kFolder + "pixels.safetensors");
  const TensorView& expected = golden.at(name);
  ASSERT_EQ(expected.shape, (std::vector<std::int64_t>{image.height, image.width, image.channels}))
      << name;
  ASSERT_EQ(image.pixels.size(), expected.bytes.size());
  EXPECT_EQ(std::memcmp(image.pixels.data(), expected.bytes.data(), image.pixels.size()), 0)
      << name;
}

// Bit for bit: both decoders are exact about PNG, and both use libjpeg-turbo's accurate transform
// for JPEG.
TEST(ImageDecode, EqualsPillow) {
  for (const char* name :
       {"rgb.png", "grey.png", "palette.png", "one_bit.png", "opaque.png", "interlaced.png",
        "rgb.jpg", "rgb444.jpg", "grey.jpg", "progressive.jpg"}) {
    expect_golden(decode_file(name), name);
  }
}

void expect_refused(const std::string& content, const std::string& part) {
  const auto error = error_of([&] { decode_image(bytes_of(content), "set/a.png"); });
  ASSERT_TRUE(error) << part;
  EXPECT_EQ(error->code, ErrorCode::kCorrupt);
  EXPECT_THAT(error->message, AllOf(HasSubstr("set/a.png"), HasSubstr("expected"),
                                    HasSubstr("found"), HasSubstr(part)));
}

TEST(ImageDecode, RefusesWhatItWouldHaveToGuess) {
  expect_refused(slurp(kFolder + "transparent.png"), "alpha 254 at (3, 2)");
  expect_refused(slurp(kFolder + "sixteen_bits.png"), "found 16");
  expect_refused(slurp(kFolder + "cmyk.jpg"), "found 4 components");
  expect_refused("", "0 bytes");
  expect_refused("GIF89a and so on", "16 bytes");
}

TEST(ImageDecode, TruncatedAtEveryLengthIsRefused) {
  for (const char* name : {"grey.png", "rgb.jpg", "progressive.jpg"}) {
    const std::string whole = slurp(kFolder + name);
    for (std::size_t length = 0; length < whole.size(); length += 3) {
      EXPECT_TRUE(error_of([&] { decode_image(bytes_of(whole.substr(0, length)), name); }))
          << name << " " << length;
    }
  }
}

// PNG carries checksums: a flipped bit is refused or changes nothing.
TEST(ImageDecode, AFlippedBitOfAPngNeverChangesThePixels) {
  const std::string whole = slurp(kFolder + "grey.png");
  const DecodedImage original = decode_file("grey.png");
  for (std::size_t bit = 0; bit < 8 * whole.size(); bit += 5) {
    const std::string flipped = with_flipped_bit(whole, bit);
    const auto error = error_of(
        [&] { EXPECT_EQ(decode_image(bytes_of(flipped), "a").pixels, original.pixels) << bit; });
    if (error) {
      EXPECT_EQ(error->code, ErrorCode::kCorrupt);
    }
  }
}

// 65,500 x 65,500 pixels, the most that JPEG's library takes, in a thousand bytes take no memory.
TEST(ImageDecode, AHugeSizeIsRefusedByItsHeader) {
  std::string jpeg = slurp(kFolder + "grey.jpg");
  const std::size_t frame = jpeg.find("\xff\xc0");
  ASSERT_NE(frame, std::string::npos);
  jpeg.replace(frame + 5, 4, "\xff\xdc\xff\xdc");
  expect_refused(jpeg, "65500x65500");
}

TEST(ImageResize, EqualsPillow) {
  for (const auto& [name, filter, width, height] : {std::tuple{"rgb.png", "box", 9, 7},
                                                    {"rgb.png", "lanczos", 16, 16},
                                                    {"rgb.png", "lanczos", 5, 13},
                                                    {"grey.png", "lanczos", 10, 10},
                                                    {"square.png", "box", 16, 16},
                                                    {"square.png", "box", 24, 24},
                                                    {"square.png", "lanczos", 16, 16},
                                                    {"square.png", "lanczos", 31, 31}}) {
    const ResizeFilter kind =
        std::string(filter) == "box" ? ResizeFilter::kBox : ResizeFilter::kLanczos;
    expect_golden(resize(decode_file(name), width, height, kind), std::string(name) + " " + filter +
                                                                      " " + std::to_string(width) +
                                                                      "x" + std::to_string(height));
  }
}

TEST(ImageResize, TheCropIsTheMiddle) {
  const DecodedImage wide{5, 2, 1, {0, 1, 2, 3, 4, 10, 11, 12, 13, 14}};
  EXPECT_EQ(center_crop(wide).pixels, (std::vector<std::uint8_t>{1, 2, 11, 12}));
  const DecodedImage high{1, 4, 1, {0, 1, 2, 3}};
  EXPECT_EQ(center_crop(high).pixels, (std::vector<std::uint8_t>{1}));
}

TEST(ImageResize, BoxesByAWholeFactorAreMeans) {
  const DecodedImage image{4, 2, 1, {0, 1, 100, 200, 2, 3, 50, 250}};
  EXPECT_EQ(resize(image, 2, 1, ResizeFilter::kBox).pixels, (std::vector<std::uint8_t>{2, 150}));
}

}  // namespace
}  // namespace onestep
