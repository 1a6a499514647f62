#include "worker/metrics/picture.h"

#include <png.h>

#include <algorithm>
#include <cstring>

#include "common/durable_file.h"
#include "common/error.h"
#include "worker/metrics/bitmap_font.h"

namespace onestep {
namespace {

constexpr std::int64_t kMargin = 8;     // white round each panel
constexpr std::int64_t kTextScale = 2;  // screen pixels a font pixel
constexpr std::int64_t kTextHeight = kGlyphHeight * kTextScale;
constexpr std::int64_t kAdvance = (kGlyphWidth + 1) * kTextScale;
constexpr std::uint8_t kWhite = 255, kInk = 20;
constexpr std::uint64_t kMaxPixels = std::uint64_t{1} << 28;

void set_pixel(Picture& picture, std::int64_t x, std::int64_t y, std::uint8_t shade) {
  std::memset(picture.rgb.data() + (y * picture.width + x) * 3, shade, 3);
}

void draw_text(Picture& picture, std::int64_t left, std::int64_t top, std::int64_t width,
               const std::string& text) {
  for (std::size_t i = 0; i < text.size(); ++i) {
    const std::int64_t origin = left + static_cast<std::int64_t>(i) * kAdvance;
    if (origin + kGlyphWidth * kTextScale > left + width) return;
    const Glyph glyph = glyph_of(text[i]);
    for (std::int64_t y = 0; y < kTextHeight; ++y) {
      for (std::int64_t x = 0; x < kGlyphWidth * kTextScale; ++x) {
        const auto bits = glyph[static_cast<std::size_t>(y / kTextScale)];
        if ((bits >> (kGlyphWidth - 1 - x / kTextScale)) & 1)
          set_pixel(picture, origin + x, top + y, kInk);
      }
    }
  }
}

// libpng's simplified interface, released whatever happens.
class PngImage {
 public:
  PngImage() {
    std::memset(&image, 0, sizeof image);
    image.version = PNG_IMAGE_VERSION;
  }
  PngImage(const PngImage&) = delete;
  PngImage& operator=(const PngImage&) = delete;
  ~PngImage() { png_image_free(&image); }
  png_image image;
};

}  // namespace

Picture join_panels(const std::vector<Panel>& panels) {
  if (panels.empty())
    throw Error(ErrorCode::kInternal, "joined picture: expected a panel or more, found none");
  constexpr std::int64_t kTop = kMargin + kTextHeight + kMargin;
  Picture joined;
  joined.width = kMargin;
  for (const Panel& panel : panels) {
    joined.width += panel.picture.width + kMargin;
    joined.height = std::max(joined.height, kTop + panel.picture.height + kMargin);
  }
  joined.rgb.assign(static_cast<std::size_t>(joined.width * joined.height * 3), kWhite);
  std::int64_t left = kMargin;
  for (const auto& [caption, picture] : panels) {
    draw_text(joined, left, kMargin, picture.width, caption);
    for (std::int64_t y = 0; y < picture.height; ++y) {
      std::memcpy(joined.rgb.data() + ((kTop + y) * joined.width + left) * 3,
                  picture.rgb.data() + y * picture.width * 3,
                  static_cast<std::size_t>(picture.width * 3));
    }
    left += picture.width + kMargin;
  }
  return joined;
}

std::string encode_png(const Picture& picture) {
  PngImage png;
  png.image.width = static_cast<png_uint_32>(picture.width);
  png.image.height = static_cast<png_uint_32>(picture.height);
  png.image.format = PNG_FORMAT_RGB;
  png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(png.image);
  std::string content(size, '\0');
  if (png_image_write_to_memory(&png.image, content.data(), &size, 0, picture.rgb.data(), 0,
                                nullptr) == 0) {
    throw Error(ErrorCode::kInternal, "PNG: " + std::to_string(picture.width) + "x" +
                                          std::to_string(picture.height) + ": " +
                                          png.image.message);
  }
  content.resize(size);
  return content;
}

void write_png(const std::string& path, const Picture& picture) {
  write_file_durably(path, encode_png(picture));
}

Picture read_png(const std::string& path) {
  const std::string content = read_file(path);
  PngImage png;
  if (png_image_begin_read_from_memory(&png.image, content.data(), content.size()) == 0) {
    throw Error(ErrorCode::kCorrupt,
                path + ": expected a PNG picture, found none: " + png.image.message);
  }
  if (std::uint64_t{png.image.width} * png.image.height > kMaxPixels) {
    throw Error(ErrorCode::kCorrupt, path + ": expected at most 2^28 pixels, found " +
                                         std::to_string(png.image.width) + "x" +
                                         std::to_string(png.image.height));
  }
  png.image.format = PNG_FORMAT_RGB;
  Picture picture{png.image.width, png.image.height, {}};
  picture.rgb.resize(PNG_IMAGE_SIZE(png.image));
  const png_color white{kWhite, kWhite, kWhite};
  // Warnings (a bad checksum in a chunk that can be skipped) count as damage too.
  if (png_image_finish_read(&png.image, &white, picture.rgb.data(), 0, nullptr) == 0 ||
      PNG_IMAGE_FAILED(png.image)) {
    throw Error(ErrorCode::kCorrupt,
                path + ": expected a whole PNG picture, found: " + png.image.message);
  }
  return picture;
}

}  // namespace onestep
