// e^x, the logistic function and SiLU's derivative, without libm: the same bits from g++ and nvcc.
#pragma once

#include <cstdint>

namespace onestep {

// e^x for |x| <= 87, and of the bound beyond: 2^n times a polynomial on [-ln 2 / 2, ln 2 / 2]; relative error below 2e-7.
template <class Ops>
constexpr float exp_poly(float x) {
  x = x < -87.0f ? -87.0f : x;
  x = x > 87.0f ? 87.0f : x;
  const float n = Ops::round(x * 1.44269504f);
  float r = Ops::fma(n, -0.693145752f, x);
  r = Ops::fma(n, -1.42860677e-6f, r);
  float p = Ops::fma(r, 1.0f / 5040.0f, 1.0f / 720.0f);
  p = Ops::fma(r, p, 1.0f / 120.0f);
  p = Ops::fma(r, p, 1.0f / 24.0f);
  p = Ops::fma(r, p, 1.0f / 6.0f);
  p = Ops::fma(r, p, 0.5f);
  p = Ops::fma(r, p, 1.0f);
  p = Ops::fma(r, p, 1.0f);
  return p * Ops::as_float(static_cast<std::uint32_t>((static_cast<std::int32_t>(n) + 127) << 23));
}

template <class Ops>
constexpr float sigmoid(float z) {
  return Ops::reciprocal(1.0f + exp_poly<Ops>(-z));
}

// d/dz of z sigmoid(z).
template <class Ops>
constexpr float silu_slope(float z) {
  const float s = sigmoid<Ops>(z);
  return s * Ops::fma(z, 1.0f - s, 1.0f);
}

}  // namespace onestep
