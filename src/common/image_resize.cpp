#include "common/image_resize.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace onestep {
namespace {

constexpr int kFractionBits = 32 - 8 - 2;  // PIL's: a sum of products stays within 32 bits

double box(double x) { return x > -0.5 && x <= 0.5 ? 1.0 : 0.0; }

double sinc(double x) {
  if (x == 0) return 1;
  x *= std::numbers::pi;
  return std::sin(x) / x;
}

double lanczos(double x) { return -3.0 <= x && x < 3.0 ? sinc(x) * sinc(x / 3) : 0.0; }

struct Kernel {
  double (*weight)(double);
  double support;
};

// Which inputs make one output, and by how much.
struct Taps {
  std::int64_t first = 0;
  std::vector<std::int32_t> weights;
};

std::vector<Taps> taps_of(std::int64_t in, std::int64_t out, const Kernel& kernel) {
  const double scale = static_cast<double>(in) / static_cast<double>(out);
  const double stretch = std::max(scale, 1.0);
  const double support = kernel.support * stretch;
  std::vector<Taps> all(static_cast<std::size_t>(out));
  std::vector<double> weights;
  for (std::int64_t i = 0; i < out; ++i) {
    const double center = (static_cast<double>(i) + 0.5) * scale;
    Taps& taps = all[static_cast<std::size_t>(i)];
    taps.first = std::max<std::int64_t>(0, static_cast<std::int64_t>(center - support + 0.5));
    const std::int64_t end = std::min(in, static_cast<std::int64_t>(center + support + 0.5));
    weights.clear();
    double sum = 0;
    for (std::int64_t x = taps.first; x < end; ++x) {
      weights.push_back(kernel.weight((static_cast<double>(x) - center + 0.5) * (1.0 / stretch)));
      sum += weights.back();
    }
    for (const double weight : weights) {
      const double fixed = (sum != 0 ? weight / sum : weight) * (1 << kFractionBits);
      taps.weights.push_back(static_cast<std::int32_t>(fixed < 0 ? fixed - 0.5 : fixed + 0.5));
    }
  }
  return all;
}

std::uint8_t to_byte(std::int32_t sum) {
  return static_cast<std::uint8_t>(std::clamp(sum >> kFractionBits, 0, 255));
}

DecodedImage resize_rows(const DecodedImage& image, std::int64_t width, const Kernel& kernel) {
  DecodedImage result{width, image.height, image.channels, {}};
  result.pixels.resize(static_cast<std::size_t>(width * image.height * image.channels));
  const auto taps = taps_of(image.width, width, kernel);
  std::uint8_t* out = result.pixels.data();
  for (std::int64_t y = 0; y < image.height; ++y) {
    const std::uint8_t* row = image.pixels.data() + y * image.width * image.channels;
    for (const Taps& tap : taps) {
      for (std::int64_t c = 0; c < image.channels; ++c) {
        std::int32_t sum = 1 << (kFractionBits - 1);
        const std::uint8_t* in = row + tap.first * image.channels + c;
        for (const std::int32_t weight : tap.weights) {
          sum += *in * weight;
          in += image.channels;
        }
        *out++ = to_byte(sum);
      }
    }
  }
  return result;
}

DecodedImage resize_columns(const DecodedImage& image, std::int64_t height, const Kernel& kernel) {
  DecodedImage result{image.width, height, image.channels, {}};
  const std::int64_t row_samples = image.width * image.channels;
  result.pixels.resize(static_cast<std::size_t>(row_samples * height));
  std::uint8_t* out = result.pixels.data();
  for (const Taps& tap : taps_of(image.height, height, kernel)) {
    for (std::int64_t sample = 0; sample < row_samples; ++sample) {
      std::int32_t sum = 1 << (kFractionBits - 1);
      const std::uint8_t* in = image.pixels.data() + tap.first * row_samples + sample;
      for (const std::int32_t weight : tap.weights) {
        sum += *in * weight;
        in += row_samples;
      }
      *out++ = to_byte(sum);
    }
  }
  return result;
}

}  // namespace

DecodedImage center_crop(const DecodedImage& image) {
  const std::int64_t side = std::min(image.width, image.height);
  const std::int64_t left = (image.width - side) / 2, top = (image.height - side) / 2;
  DecodedImage result{side, side, image.channels, {}};
  result.pixels.reserve(static_cast<std::size_t>(side * side * image.channels));
  for (std::int64_t y = 0; y < side; ++y) {
    const auto row = image.pixels.begin() + ((top + y) * image.width + left) * image.channels;
    result.pixels.insert(result.pixels.end(), row, row + side * image.channels);
  }
  return result;
}

DecodedImage resize(const DecodedImage& image, std::int64_t width, std::int64_t height,
                    ResizeFilter filter) {
  const Kernel kernel = filter == ResizeFilter::kBox ? Kernel{box, 0.5} : Kernel{lanczos, 3.0};
  DecodedImage result = image;
  if (width != image.width) result = resize_rows(image, width, kernel);
  if (height != image.height) result = resize_columns(result, height, kernel);
  return result;
}

}  // namespace onestep
