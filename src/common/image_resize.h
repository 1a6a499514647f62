// Crops and resizes pictures of bytes, bit for bit as PIL does.
#pragma once

#include <cstdint>
#include <string>

#include "common/image_decode.h"

namespace onestep {

// The largest square around the middle; an odd rest loses its extra pixel at the right or the
// bottom, as EDM's preparation cuts.
DecodedImage center_crop(const DecodedImage& image);

enum class ResizeFilter { kBox, kLanczos };
// width x height >= 1; separable, rows first, antialiased, coefficients of 22 fractional bits and
// bytes between the passes, as PIL.Image.resize() computes with BOX and LANCZOS. Box down by a
// whole factor is the mean of the boxes, rounded.
DecodedImage resize(const DecodedImage& image, std::int64_t width, std::int64_t height,
                    ResizeFilter filter);

}  // namespace onestep
