#include "common/resample.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <numbers>
#include <vector>

namespace onestep {
namespace {

constexpr int kFractionBits = 32 - 8 - 2;  // Pillow's: 8 bits of pixel and 2 of overshoot stay within 32

double box(double x) { return x > -0.5 && x <= 0.5 ? 1.0 : 0.0; }

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

struct Kernel {
  double (*weight)(double);
  double support;
};

Kernel kernel_of(ResizeFilter filter) {
  switch (filter) {
    case ResizeFilter::kBox: return {box, 0.5};
    case ResizeFilter::kBicubic: return {bicubic, 2.0};
    case ResizeFilter::kLanczos: return {lanczos, 3.0};
  }
  return {box, 0.5};
}

// Which inputs make each output, and by how much.
struct Taps {
  std::vector<std::int64_t> first, count;  // [out]
  std::vector<double> weight;              // [out][most]; each row sums to 1
  std::int64_t most = 0;
};

Taps taps_of(std::int64_t in, std::int64_t out, const Kernel& kernel) {
  const double scale = static_cast<double>(in) / static_cast<double>(out);
  const double stretch = std::max(scale, 1.0);
  const double support = kernel.support * stretch, inverse = 1.0 / stretch;
  Taps taps;
  taps.most = static_cast<std::int64_t>(std::ceil(support)) * 2 + 1;
  taps.weight.assign(static_cast<std::size_t>(out * taps.most), 0);
  for (std::int64_t o = 0; o < out; ++o) {
    const double center = (static_cast<double>(o) + 0.5) * scale;
    const auto first = std::max<std::int64_t>(0, static_cast<std::int64_t>(center - support + 0.5));
    const auto end = std::min(in, static_cast<std::int64_t>(center + support + 0.5));
    double* weight = taps.weight.data() + o * taps.most;
    double sum = 0;
    for (std::int64_t i = 0; i < end - first; ++i) {
      weight[i] = kernel.weight((static_cast<double>(i + first) - center + 0.5) * inverse);
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

struct FixedPoint {
  using Pixel = std::uint8_t;
  using Weight = std::int32_t;
  using Sum = std::int32_t;
  static constexpr Sum kStart = 1 << (kFractionBits - 1);
  static Weight weight(double w) { return static_cast<Weight>((w < 0 ? -0.5 : 0.5) + w * (1 << kFractionBits)); }
  static Pixel pixel(Sum sum) { return static_cast<Pixel>(std::clamp(sum >> kFractionBits, 0, 255)); }
};

struct FloatingPoint {
  using Pixel = float;
  using Weight = double;
  using Sum = double;
  static constexpr Sum kStart = 0;
  static Weight weight(double w) { return w; }
  static Pixel pixel(Sum sum) { return static_cast<Pixel>(sum); }
};

template <class Numbers>
void pass(std::span<const typename Numbers::Pixel> source, std::span<typename Numbers::Pixel> target, const ResampleShape& shape,
          ResizeFilter filter) {
  using Sum = typename Numbers::Sum;
  assert(source.size() == static_cast<std::size_t>(shape.outer * shape.in * shape.inner));
  assert(target.size() == static_cast<std::size_t>(shape.outer * shape.out * shape.inner));
  const Taps taps = taps_of(shape.in, shape.out, kernel_of(filter));
  std::vector<typename Numbers::Weight> weights;
  for (const double weight : taps.weight) weights.push_back(Numbers::weight(weight));
  constexpr std::int64_t kFew = 4;  // neighbours that are no vector's length: each has a sum of its own
  const std::int64_t inner = shape.inner;
  std::vector<Sum> sums(static_cast<std::size_t>(inner));
  auto* to = target.data();
  for (std::int64_t p = 0; p < shape.outer; ++p) {
    for (std::int64_t o = 0; o < shape.out; ++o, to += inner) {
      const auto* from = source.data() + (p * shape.in + taps.first[static_cast<std::size_t>(o)]) * inner;
      const auto* weight = weights.data() + o * taps.most;
      const std::int64_t count = taps.count[static_cast<std::size_t>(o)];
      if (inner <= kFew) {
        for (std::int64_t x = 0; x < inner; ++x) {
          Sum sum = Numbers::kStart;
          for (std::int64_t i = 0; i < count; ++i) sum += static_cast<Sum>(from[i * inner + x]) * weight[i];
          to[x] = Numbers::pixel(sum);
        }
        continue;
      }
      std::fill(sums.begin(), sums.end(), Numbers::kStart);
      for (std::int64_t i = 0; i < count; ++i, from += inner) {
        for (std::int64_t x = 0; x < inner; ++x) sums[static_cast<std::size_t>(x)] += static_cast<Sum>(from[x]) * weight[i];
      }
      for (std::int64_t x = 0; x < inner; ++x) to[x] = Numbers::pixel(sums[static_cast<std::size_t>(x)]);
    }
  }
}

}  // namespace

void resample(std::span<const std::uint8_t> from, std::span<std::uint8_t> to, const ResampleShape& shape, ResizeFilter filter) {
  pass<FixedPoint>(from, to, shape, filter);
}

void resample(std::span<const float> from, std::span<float> to, const ResampleShape& shape, ResizeFilter filter) {
  pass<FloatingPoint>(from, to, shape, filter);
}

}  // namespace onestep
