#include "common/image_resize.h"

#include <algorithm>
#include <utility>

namespace onestep {

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
  DecodedImage result = image;
  const auto pass = [&](std::int64_t to_width, std::int64_t to_height, const ResampleShape& shape) {
    DecodedImage next{to_width, to_height, image.channels, {}};
    next.pixels.resize(static_cast<std::size_t>(to_width * to_height * image.channels));
    resample(result.pixels, next.pixels, shape, filter);
    result = std::move(next);
  };
  if (width != image.width)
    pass(width, image.height, {image.height, image.width, width, image.channels});
  if (height != image.height)
    pass(width, height, {1, image.height, height, width * image.channels});
  return result;
}

}  // namespace onestep
