#include "worker/tensors/keyed_normal.h"

#include "worker/tensors/host_ops.h"
#include "worker/tensors/keyed_fill.h"

namespace onestep {
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
