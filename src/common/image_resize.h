// Crops and resizes pictures of bytes, bit for bit as Pillow does.
#pragma once

#include <cstdint>

#include "common/image_decode.h"
#include "common/resample.h"

namespace onestep {

// The largest square around the middle; an odd rest loses its extra pixel at the right or the
// bottom, as EDM's preparation cuts.
DecodedImage center_crop(const DecodedImage& image);

// width x height >= 1; rows first, bytes between the passes, as Image.resize() computes; a direction
// whose size stays is left alone. Box down by a whole factor is the mean of the boxes, rounded.
DecodedImage resize(const DecodedImage& image, std::int64_t width, std::int64_t height,
                    ResizeFilter filter);

}  // namespace onestep
