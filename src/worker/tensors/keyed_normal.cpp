#include "worker/tensors/keyed_normal.h"

#include <bit>

#include "worker/tensors/keyed_fill.h"

namespace onestep {
namespace {

struct HostOps {
  static float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
  static float sqrt(float x) { return __builtin_sqrtf(x); }
  static float as_float(std::uint32_t bits) { return std::bit_cast<float>(bits); }
  static std::uint32_t as_bits(float x) { return std::bit_cast<std::uint32_t>(x); }
};

}  // namespace

// Built twice: with the fma instruction, and with libm's exact fmaf for processors without it. Equal bits.
__attribute__((target_clones("arch=x86-64-v3", "default")))
void fill_normal(std::uint64_t seed, RandomStream stream, std::uint32_t step, std::uint64_t sample, float* out,
                 std::int64_t count) {
  const std::int64_t whole_blocks = count / 4;
  for (std::int64_t block = 0; block < whole_blocks; ++block) {
    const auto four = keyed_normal_block<HostOps>(seed, stream, step, sample, static_cast<std::uint32_t>(block));
    for (int lane = 0; lane < 4; ++lane) out[4 * block + lane] = four[lane];
  }
  if (count % 4 != 0) {
    const auto four =
        keyed_normal_block<HostOps>(seed, stream, step, sample, static_cast<std::uint32_t>(whole_blocks));
    for (std::int64_t i = 4 * whole_blocks; i < count; ++i) out[i] = four[i % 4];
  }
}

}  // namespace onestep
