// Fills plain memory with keyed draws; no torch here, so that the arithmetic is compiled and tested on its own.
#pragma once

#include <cstdint>

#include "common/philox.h"

namespace onestep {

// out[0..count): standard normals of one sample. count < 2^34.
void fill_normal(std::uint64_t seed, RandomStream stream, std::uint32_t step, std::uint64_t sample, float* out,
                 std::int64_t count);

}  // namespace onestep
