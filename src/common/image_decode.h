// PNG and JPEG files in memory -> bytes. Strict: what a viewer would show half of is refused.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace onestep {

struct DecodedImage {
  std::int64_t width = 0, height = 0;
  std::int64_t channels = 0;         // 1: grey, 3: RGB
  std::vector<std::uint8_t> pixels;  // [height, width, channels]
};

constexpr std::int64_t kMaxPictureSamples = std::int64_t{1} << 27;  // width * height * channels of one picture

enum class PictureKind { kNone, kPng, kJpeg };
// By the first bytes.
PictureKind picture_kind(std::span<const std::byte> bytes);

// PNG: grey of 1 to 8 bits, RGB of 8, palettes (as RGB); an alpha channel only when every pixel is opaque. JPEG: baseline and
// progressive, grey or YCbCr/RGB; the accurate integer transform and smooth upsampling, as PIL decodes. Colour profiles, gamma
// and orientation tags are not applied, as PIL's open() does not. Pure; any thread. `where` names the picture in errors.
// Errors: kCorrupt naming `where`, expected and found: another format, 16 bits, transparency, CMYK, damage of any kind (checksums,
// missing or extraneous data: also what decoders only warn of), more samples than kMaxPictureSamples.
DecodedImage decode_image(std::span<const std::byte> bytes, const std::string& where);

}  // namespace onestep
