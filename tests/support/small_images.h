// A small image file for tests that train or judge: pictures in whole-number arithmetic, all of them different.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/durable_file.h"
#include "common/hash.h"
#include "common/image_file.h"

namespace onestep {

// Picture i as bytes [channels][side][side]: a slow wave of its own in every channel.
inline std::vector<std::uint8_t> small_picture(std::int64_t i, std::int64_t channels, std::int64_t side) {
  std::vector<std::uint8_t> pixels;
  for (std::int64_t c = 0; c < channels; ++c) {
    for (std::int64_t y = 0; y < side; ++y) {
      for (std::int64_t x = 0; x < side; ++x) {
        pixels.push_back(static_cast<std::uint8_t>(((i + 3) * x * x + (5 + c) * y * y + (c + i) * x * y + 37 * i) >> 3));
      }
    }
  }
  return pixels;
}

// Writes `count` of them, square, of class i mod num_classes; returns the digest of the content.
inline std::string write_small_images(const std::string& path, std::int64_t count, std::int64_t channels, std::int64_t side,
                                      std::int64_t num_classes) {
  const ImageFileInfo info{.count = count,
                           .channels = channels,
                           .height = side,
                           .width = side,
                           .num_classes = num_classes,
                           .sha256 = {},
                           .source = "small_images.h",
                           .recipe = ""};
  std::vector<std::uint8_t> pixels, labels;
  for (std::int64_t i = 0; i < count; ++i) {
    const auto picture = small_picture(i, channels, side);
    pixels.insert(pixels.end(), picture.begin(), picture.end());
    labels.push_back(static_cast<std::uint8_t>(i % num_classes));
  }
  const ImageFileOffsets offsets = create_image_file(path, info, labels);
  WorkFile(path).write_at(offsets.images, pixels.data(), pixels.size());
  Sha256 hash;
  hash.update(pixels.data(), pixels.size());
  hash.update(labels.data(), labels.size());
  const std::string digest = hash.finish();
  seal_image_file(path, digest);
  return digest;
}

}  // namespace onestep
