#include "common/image_decode.h"

#include <jpeglib.h>
#include <png.h>

#include <algorithm>
#include <array>
#include <csetjmp>
#include <cstring>

#include "common/error.h"

namespace onestep {
namespace {

constexpr std::size_t kMessageBytes = 256;

[[noreturn]] void corrupt(const std::string& where, const std::string& what) {
  throw Error(ErrorCode::kCorrupt, where + ": " + what);
}

void check_size(const std::string& where, std::uint64_t width, std::uint64_t height, std::uint64_t channels) {
  if (width == 0 || height == 0 || width * height > static_cast<std::uint64_t>(kMaxPictureSamples) / channels) {
    corrupt(where, "size: expected 1.." + std::to_string(kMaxPictureSamples) + " samples, found " +
                       std::to_string(width) + "x" + std::to_string(height) + "x" + std::to_string(channels));
  }
}

// ---- PNG -----------------------------------------------------------------------------------------
// libpng and libjpeg report errors by longjmp: the functions that call them hold no C++ objects of their own.

class PngDecoder {
 public:
  PngDecoder(std::span<const std::byte> bytes, const std::string& where) : bytes_(bytes), where_(where) {
    png_ = png_create_read_struct(PNG_LIBPNG_VER_STRING, this, on_error, [](png_structp, png_const_charp) {});
    if (png_ != nullptr) info_ = png_create_info_struct(png_);
    if (info_ == nullptr) {
      png_destroy_read_struct(&png_, nullptr, nullptr);
      throw Error(ErrorCode::kInternal, "libpng: out of memory");
    }
  }
  PngDecoder(const PngDecoder&) = delete;
  PngDecoder& operator=(const PngDecoder&) = delete;
  ~PngDecoder() { png_destroy_read_struct(&png_, &info_, nullptr); }

  DecodedImage decode() {
    if (!read_header()) fail();
    if (depth_ == 16) corrupt(where_, "PNG: expected at most 8 bits a sample, found 16");
    check_size(where_, width_, height_, 4);
    if (!set_transformations()) fail();
    const std::size_t row_bytes = std::size_t{width_} * channels_;
    pixels_.resize(row_bytes * height_);
    for (std::size_t row = 0; row < height_; ++row) rows_.push_back(pixels_.data() + row * row_bytes);
    if (!read_pixels()) fail();
    return strip_alpha();
  }

 private:
  static void on_error(png_structp png, png_const_charp message) {
    auto* self = static_cast<PngDecoder*>(png_get_error_ptr(png));
    std::strncpy(self->message_.data(), message, kMessageBytes - 1);
    png_longjmp(png, 1);
  }

  static void on_read(png_structp png, png_bytep out, std::size_t size) {
    auto* self = static_cast<PngDecoder*>(png_get_io_ptr(png));
    if (size > self->bytes_.size() - self->position_) png_error(png, "the file ends too early");
    std::memcpy(out, self->bytes_.data() + self->position_, size);
    self->position_ += size;
  }

  [[noreturn]] void fail() const { corrupt(where_, std::string("PNG: expected a whole one, found: ") + message_.data()); }

  bool read_header() {
    if (setjmp(png_jmpbuf(png_)) != 0) return false;
    png_set_read_fn(png_, this, on_read);
    png_set_crc_action(png_, PNG_CRC_ERROR_QUIT, PNG_CRC_ERROR_QUIT);
    png_read_info(png_, info_);
    width_ = png_get_image_width(png_, info_);
    height_ = png_get_image_height(png_, info_);
    depth_ = png_get_bit_depth(png_, info_);
    return true;
  }

  bool set_transformations() {
    if (setjmp(png_jmpbuf(png_)) != 0) return false;
    if (png_get_color_type(png_, info_) == PNG_COLOR_TYPE_PALETTE) png_set_palette_to_rgb(png_);
    png_set_expand_gray_1_2_4_to_8(png_);
    if (png_get_valid(png_, info_, PNG_INFO_tRNS) != 0) png_set_tRNS_to_alpha(png_);
    png_set_interlace_handling(png_);
    png_read_update_info(png_, info_);
    channels_ = png_get_channels(png_, info_);
    return true;
  }

  bool read_pixels() {
    if (setjmp(png_jmpbuf(png_)) != 0) return false;
    png_read_image(png_, rows_.data());
    png_read_end(png_, nullptr);
    return true;
  }

  // [H,W,2] or [H,W,4], opaque everywhere, -> [H,W,1] or [H,W,3].
  DecodedImage strip_alpha() {
    DecodedImage image{width_, height_, channels_ % 2 == 1 ? channels_ : channels_ - 1, {}};
    if (channels_ % 2 == 1) {
      image.pixels = std::move(pixels_);
      return image;
    }
    const auto kept = static_cast<std::size_t>(image.channels);
    image.pixels.resize(pixels_.size() / channels_ * kept);
    for (std::size_t in = 0, out = 0; in < pixels_.size(); in += channels_, out += kept) {
      if (pixels_[in + kept] != 255) {
        const std::size_t pixel = in / channels_;
        corrupt(where_, "PNG: expected opaque pixels, found alpha " + std::to_string(pixels_[in + kept]) + " at (" +
                            std::to_string(pixel % width_) + ", " + std::to_string(pixel / width_) + ")");
      }
      std::copy_n(pixels_.begin() + static_cast<std::ptrdiff_t>(in), kept,
                  image.pixels.begin() + static_cast<std::ptrdiff_t>(out));
    }
    return image;
  }

  std::span<const std::byte> bytes_;
  const std::string& where_;
  std::size_t position_ = 0;
  png_structp png_ = nullptr;
  png_infop info_ = nullptr;
  png_uint_32 width_ = 0, height_ = 0;
  unsigned depth_ = 0, channels_ = 0;
  std::vector<std::uint8_t> pixels_;
  std::vector<png_bytep> rows_;
  std::array<char, kMessageBytes> message_{};
};

// ---- JPEG ----------------------------------------------------------------------------------------

class JpegDecoder {
 public:
  JpegDecoder(std::span<const std::byte> bytes, const std::string& where) : bytes_(bytes), where_(where) {
    decoder_.err = jpeg_std_error(&errors_.base);
    errors_.base.error_exit = on_error;
    errors_.base.emit_message = [](j_common_ptr decoder, int level) {
      if (level < 0) on_error(decoder);  // a warning: damaged data
    };
    errors_.base.output_message = [](j_common_ptr) {};
  }
  JpegDecoder(const JpegDecoder&) = delete;
  JpegDecoder& operator=(const JpegDecoder&) = delete;
  ~JpegDecoder() { jpeg_destroy_decompress(&decoder_); }

  DecodedImage decode() {
    if (!read_header()) fail();
    const int components = decoder_.num_components;
    if (components != 1 && components != 3) {
      corrupt(where_, "JPEG: expected grey or three colours, found " + std::to_string(components) + " components");
    }
    check_size(where_, decoder_.image_width, decoder_.image_height, static_cast<unsigned>(components));
    DecodedImage image{decoder_.image_width, decoder_.image_height, components, {}};
    image.pixels.resize(static_cast<std::size_t>(image.width * image.height * image.channels));
    if (!read_pixels(image.pixels.data(), image.width * image.channels)) fail();
    return image;
  }

 private:
  struct Errors {
    jpeg_error_mgr base;  // first: libjpeg hands out its address
    std::jmp_buf jump;
    char message[JMSG_LENGTH_MAX];
  };

  static void on_error(j_common_ptr decoder) {
    auto* errors = reinterpret_cast<Errors*>(decoder->err);
    errors->base.format_message(decoder, errors->message);
    std::longjmp(errors->jump, 1);
  }

  [[noreturn]] void fail() const { corrupt(where_, std::string("JPEG: expected a whole one, found: ") + errors_.message); }

  bool read_header() {
    if (setjmp(errors_.jump) != 0) return false;
    jpeg_create_decompress(&decoder_);
    jpeg_mem_src(&decoder_, reinterpret_cast<const unsigned char*>(bytes_.data()), bytes_.size());
    jpeg_read_header(&decoder_, TRUE);
    return true;
  }

  bool read_pixels(std::uint8_t* pixels, std::int64_t row_bytes) {
    if (setjmp(errors_.jump) != 0) return false;
    decoder_.out_color_space = decoder_.num_components == 1 ? JCS_GRAYSCALE : JCS_RGB;
    jpeg_start_decompress(&decoder_);
    while (decoder_.output_scanline < decoder_.output_height) {
      JSAMPROW row = pixels + static_cast<std::int64_t>(decoder_.output_scanline) * row_bytes;
      jpeg_read_scanlines(&decoder_, &row, 1);
    }
    jpeg_finish_decompress(&decoder_);
    return true;
  }

  std::span<const std::byte> bytes_;
  const std::string& where_;
  jpeg_decompress_struct decoder_{};
  Errors errors_{};
};

}  // namespace

PictureKind picture_kind(std::span<const std::byte> bytes) {
  constexpr std::array<unsigned char, 8> kPng{0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
  constexpr std::array<unsigned char, 3> kJpeg{0xff, 0xd8, 0xff};
  if (bytes.size() >= kPng.size() && std::memcmp(bytes.data(), kPng.data(), kPng.size()) == 0) return PictureKind::kPng;
  if (bytes.size() >= kJpeg.size() && std::memcmp(bytes.data(), kJpeg.data(), kJpeg.size()) == 0) return PictureKind::kJpeg;
  return PictureKind::kNone;
}

DecodedImage decode_image(std::span<const std::byte> bytes, const std::string& where) {
  switch (picture_kind(bytes)) {
    case PictureKind::kPng: return PngDecoder(bytes, where).decode();
    case PictureKind::kJpeg: return JpegDecoder(bytes, where).decode();
    case PictureKind::kNone: break;
  }
  corrupt(where, "expected a PNG or JPEG file, found " + std::to_string(bytes.size()) + " bytes of another");
}

}  // namespace onestep
