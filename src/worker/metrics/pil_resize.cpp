#include "worker/metrics/pil_resize.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "common/error.h"

namespace onestep {
namespace {

constexpr int kPrecisionBits = 32 - 8 - 2;  // 8 bits of pixel, 2 of overshoot

double bicubic(double x) {
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
  return 0;
}

double sinc(double x) {
  if (x == 0) return 1;
  x *= std::numbers::pi;
  return std::sin(x) / x;
}

double lanczos(double x) { return -3 <= x && x < 3 ? sinc(x) * sinc(x / 3) : 0; }

// The source pixels of each pixel of one output row, and their weights.
struct Taps {
  std::vector<std::int64_t> first, count;  // [out]
  std::vector<double> weight;              // [out][most]
  std::int64_t most = 0;
};

Taps taps_of(std::int64_t in, std::int64_t out, PilFilter filter) {
  const double scale = static_cast<double>(in) / static_cast<double>(out);
  const double filter_scale = std::max(scale, 1.0);
  const double support = (filter == PilFilter::kBicubic ? 2.0 : 3.0) * filter_scale;
  Taps taps;
  taps.most = static_cast<std::int64_t>(std::ceil(support)) * 2 + 1;
  taps.weight.assign(static_cast<std::size_t>(out * taps.most), 0);
  const double inverse = 1.0 / filter_scale;
  for (std::int64_t o = 0; o < out; ++o) {
    const double center = (static_cast<double>(o) + 0.5) * scale;
    const std::int64_t first = std::max<std::int64_t>(0, static_cast<std::int64_t>(center - support + 0.5));
    const std::int64_t end = std::min(in, static_cast<std::int64_t>(center + support + 0.5));
    double* weight = taps.weight.data() + o * taps.most;
    double sum = 0;
    for (std::int64_t i = 0; i < end - first; ++i) {
      const double x = (static_cast<double>(i + first) - center + 0.5) * inverse;
      weight[i] = filter == PilFilter::kBicubic ? bicubic(x) : lanczos(x);
      sum += weight[i];
    }
    for (std::int64_t i = 0; i < end - first; ++i) {
      if (sum != 0) weight[i] /= sum;
    }
    taps.first.push_back(first);
    taps.count.push_back(end - first);
  }
  return taps;
}

std::vector<std::int32_t> fixed_point(const Taps& taps) {
  std::vector<std::int32_t> weights;
  weights.reserve(taps.weight.size());
  for (const double weight : taps.weight) {
    weights.push_back(static_cast<std::int32_t>((weight < 0 ? -0.5 : 0.5) + weight * (1 << kPrecisionBits)));
  }
  return weights;
}

std::uint8_t clip_to_byte(std::int32_t sum) {
  return static_cast<std::uint8_t>(std::clamp(sum >> kPrecisionBits, 0, 255));
}

// One pass over [planes, in, width] along the middle dimension, or over [planes * rows, in] when width is 1.
void pass(const std::uint8_t* from, std::uint8_t* to, std::int64_t planes, std::int64_t in, std::int64_t width, const Taps& taps) {
  const auto weights = fixed_point(taps);
  const auto out = static_cast<std::int64_t>(taps.first.size());
  std::vector<std::int32_t> sums(static_cast<std::size_t>(width));
  for (std::int64_t p = 0; p < planes; ++p) {
    for (std::int64_t o = 0; o < out; ++o) {
      std::fill(sums.begin(), sums.end(), 1 << (kPrecisionBits - 1));
      for (std::int64_t i = 0; i < taps.count[static_cast<std::size_t>(o)]; ++i) {
        const std::int32_t weight = weights[static_cast<std::size_t>(o * taps.most + i)];
        const std::uint8_t* row = from + (p * in + taps.first[static_cast<std::size_t>(o)] + i) * width;
        for (std::int64_t x = 0; x < width; ++x) sums[static_cast<std::size_t>(x)] += row[x] * weight;
      }
      std::uint8_t* target = to + (p * out + o) * width;
      for (std::int64_t x = 0; x < width; ++x) target[x] = clip_to_byte(sums[static_cast<std::size_t>(x)]);
    }
  }
}

void pass(const float* from, float* to, std::int64_t planes, std::int64_t in, std::int64_t width, const Taps& taps) {
  const auto out = static_cast<std::int64_t>(taps.first.size());
  std::vector<double> sums(static_cast<std::size_t>(width));
  for (std::int64_t p = 0; p < planes; ++p) {
    for (std::int64_t o = 0; o < out; ++o) {
      std::fill(sums.begin(), sums.end(), 0.0);
      for (std::int64_t i = 0; i < taps.count[static_cast<std::size_t>(o)]; ++i) {
        const double weight = taps.weight[static_cast<std::size_t>(o * taps.most + i)];
        const float* row = from + (p * in + taps.first[static_cast<std::size_t>(o)] + i) * width;
        for (std::int64_t x = 0; x < width; ++x) sums[static_cast<std::size_t>(x)] += static_cast<double>(row[x]) * weight;
      }
      float* target = to + (p * out + o) * width;
      for (std::int64_t x = 0; x < width; ++x) target[x] = static_cast<float>(sums[static_cast<std::size_t>(x)]);
    }
  }
}

template <class Pixel>
torch::Tensor resize(const torch::Tensor& images, torch::ScalarType type, std::int64_t height, std::int64_t width,
                     PilFilter filter) {
  if (images.dim() != 4 || images.scalar_type() != type || images.numel() == 0 || height < 1 || width < 1) {
    throw Error(ErrorCode::kMismatch, std::string("resize: expected pictures [B,C,H,W] of ") + torch::toString(type) +
                                          ", found " + torch::toString(images.scalar_type()) + " " +
                                          c10::str(images.sizes()));
  }
  torch::Tensor h = images.contiguous();
  const std::int64_t planes = h.size(0) * h.size(1);
  // A direction whose size stays is left alone, as Pillow leaves it.
  if (width != h.size(3)) {
    auto next = torch::empty({h.size(0), h.size(1), h.size(2), width}, type);
    pass(h.const_data_ptr<Pixel>(), next.data_ptr<Pixel>(), planes * h.size(2), h.size(3), 1, taps_of(h.size(3), width, filter));
    h = next;
  }
  if (height != h.size(2)) {
    auto next = torch::empty({h.size(0), h.size(1), height, width}, type);
    pass(h.const_data_ptr<Pixel>(), next.data_ptr<Pixel>(), planes, h.size(2), width, taps_of(h.size(2), height, filter));
    h = next;
  }
  return h;
}

}  // namespace

torch::Tensor pil_resize_bytes(const torch::Tensor& images, std::int64_t height, std::int64_t width, PilFilter filter) {
  return resize<std::uint8_t>(images, torch::kUInt8, height, width, filter);
}

torch::Tensor pil_resize_floats(const torch::Tensor& images, std::int64_t height, std::int64_t width, PilFilter filter) {
  return resize<float>(images, torch::kFloat32, height, width, filter);
}

}  // namespace onestep
