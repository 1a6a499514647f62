// bfloat16 as sixteen bits, the same on both processors; and packs of values that are loaded and stored at once.
#pragma once

#include <bit>
#include <cstdint>

namespace onestep {

struct BFloat16 {
  std::uint16_t bits = 0;
};

constexpr float to_float(float x) { return x; }
constexpr float to_float(BFloat16 x) { return std::bit_cast<float>(std::uint32_t{x.bits} << 16); }

template <class T>
constexpr T from_float(float x);
template <>
constexpr float from_float<float>(float x) {
  return x;
}
// To nearest, ties to even; every NaN becomes the quiet one, as in PyTorch.
template <>
constexpr BFloat16 from_float<BFloat16>(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {0x7fc0};
  return {static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

// W neighbouring channels; one memory transaction of a thread.
template <class T, int W>
struct alignas(sizeof(T) * W) Pack {
  T values[W];
};

}  // namespace onestep
