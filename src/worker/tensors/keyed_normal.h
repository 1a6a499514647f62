// One header for both processors: four standard normals from four random words, the same bits from g++ and nvcc.
// Only IEEE + - * /, sqrt, integer operations and explicit fused multiply-adds: no libm.
#pragma once

#include <array>
#include <cstdint>

#include "common/philox.h"

namespace onestep {

// Primitives differ between compilers; `Ops` supplies static fma(a,b,c), sqrt(x), as_float(u32), as_bits(f32).

// ((word >> 9) + 0.5) / 2^23: exact in fp32, within (0, 1).
constexpr float unit_uniform(std::uint32_t word) {
  return (static_cast<float>(word >> 9) + 0.5f) * 0x1p-23f;
}

// Natural logarithm of u in (0, 1): u = m 2^e with m in [sqrt(1/2), sqrt(2)), log m = 2 atanh((m-1)/(m+1)) as a series;
// its first omitted term is below 2e-11.
template <class Ops>
constexpr float keyed_log(float u) {
  const std::uint32_t shifted = Ops::as_bits(u) + (0x3f800000u - 0x3f3504f3u);
  const float e = static_cast<float>(static_cast<std::int32_t>(shifted >> 23) - 127);
  const float m = Ops::as_float((shifted & 0x007fffffu) + 0x3f3504f3u);
  const float s = (m - 1.0f) / (m + 1.0f);
  const float z = s * s;
  float series = Ops::fma(z, 2.0f / 11.0f, 2.0f / 9.0f);
  series = Ops::fma(z, series, 2.0f / 7.0f);
  series = Ops::fma(z, series, 2.0f / 5.0f);
  series = Ops::fma(z, series, 2.0f / 3.0f);
  const float log_m = Ops::fma(s * z, series, 2.0f * s);
  return Ops::fma(e, 0.693147182f, log_m);  // ln 2 rounded to fp32: |e| <= 24, error below 1e-6
}

// Box and Muller: radius from the first word of a pair, angle 2 pi v from the second.
template <class Ops>
constexpr std::array<float, 2> normal_pair(std::uint32_t radius_word, std::uint32_t angle_word) {
  const float radius = Ops::sqrt(-2.0f * keyed_log<Ops>(unit_uniform(radius_word)));
  // v = (quadrant + t) / 4 with t in [-1/2, 1/2]; x = t pi / 2.
  const float v4 = unit_uniform(angle_word) * 4.0f;
  const std::int32_t quadrant = static_cast<std::int32_t>(v4 + 0.5f);
  const float x = (v4 - static_cast<float>(quadrant)) * 1.57079637f;
  const float z = x * x;
  float sine = Ops::fma(z, 1.0f / 362880.0f, -1.0f / 5040.0f);
  sine = Ops::fma(z, sine, 1.0f / 120.0f);
  sine = Ops::fma(z, sine, -1.0f / 6.0f);
  sine = Ops::fma(x * z, sine, x);
  float cosine = Ops::fma(z, 1.0f / 40320.0f, -1.0f / 720.0f);
  cosine = Ops::fma(z, cosine, 1.0f / 24.0f);
  cosine = Ops::fma(z, cosine, -0.5f);
  cosine = Ops::fma(z, cosine, 1.0f);
  const bool swap = (quadrant & 1) != 0;
  const float c = swap ? sine : cosine;
  const float s = swap ? cosine : sine;
  // quadrants 0..4 turn (cos, sin) by 0, 90, 180, 270, 360 degrees
  const float cos_sign = ((quadrant + 1) & 2) != 0 ? -1.0f : 1.0f;
  const float sin_sign = (quadrant & 2) != 0 ? -1.0f : 1.0f;
  return {radius * (c * cos_sign), radius * (s * sin_sign)};
}

// The four normals of one block: elements 4*block .. 4*block+3 of a sample.
template <class Ops>
constexpr std::array<float, 4> keyed_normal_block(std::uint64_t seed, RandomStream stream, std::uint32_t step,
                                                  std::uint64_t sample, std::uint32_t block) {
  const auto words = keyed_words(seed, stream, step, sample, block);
  const auto first = normal_pair<Ops>(words[0], words[1]);
  const auto second = normal_pair<Ops>(words[2], words[3]);
  return {first[0], first[1], second[0], second[1]};
}

}  // namespace onestep
