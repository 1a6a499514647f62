// Pillow's resampling along one direction, antialiased: what every resize of pictures here is made of.
#pragma once

#include <cstdint>
#include <span>

namespace onestep {

enum class ResizeFilter {
  kBox,      // half a pixel each way: down by a whole factor, the mean of the boxes
  kBicubic,  // a = -1/2, 2 pixels each way
  kLanczos,  // 3 pixels each way
};

// Values [outer][in][inner] become [outer][out][inner]. Of pictures [H,W,C], rows are {H, W, out, C} and columns {1, H, out, W*C};
// Pillow does rows first. All >= 1.
struct ResampleShape {
  std::int64_t outer = 1, in = 1, out = 1, inner = 1;
};

// Bytes: the bits of Image.resize() on 8-bit pictures. Weights in 22-bit fixed point, sums rounded and clipped to bytes.
// `to` holds outer * out * inner. Any thread.
void resample(std::span<const std::uint8_t> from, std::span<std::uint8_t> to, const ResampleShape& shape, ResizeFilter filter);
// Floats: the bits of Pillow's mode "F". Sums in fp64, results in fp32, not clipped.
void resample(std::span<const float> from, std::span<float> to, const ResampleShape& shape, ResizeFilter filter);

}  // namespace onestep
