// Primitives that compilers spell differently, for the processor; cuda_launch.cu has the device's. Both are correctly rounded: equal bits.
#pragma once

#include <bit>
#include <cstdint>

namespace onestep {

struct HostOps {
  static float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
  static float sqrt(float x) { return __builtin_sqrtf(x); }
  static double sqrt(double x) { return __builtin_sqrt(x); }
  static float round(float x) { return __builtin_rintf(x); }  // to the nearest integer, ties to even
  static float reciprocal(float x) { return 1.0f / x; }
  static float as_float(std::uint32_t bits) { return std::bit_cast<float>(bits); }
  static std::uint32_t as_bits(float x) { return std::bit_cast<std::uint32_t>(x); }
};

}  // namespace onestep
