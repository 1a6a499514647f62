// The order of training: which row stands at which position, a function of the seed alone. No
// state, O(1) memory.
#pragma once

#include <cstdint>

#include "common/philox.h"

namespace onestep {

// Position 0, 1, 2, ... of training -> row index in [0, num_rows). Each epoch (position / num_rows)
// is a permutation of its own, keyed by (seed, stream, epoch): every row once an epoch, at any rank count.
// Thread-safe. Limits: num_rows in [1, 2^46], position >= 0, epoch < 2^32; anything else is a
// kInternal error.
std::int64_t ordered_index(std::uint64_t seed, std::int64_t num_rows, std::int64_t position,
                           RandomStream stream = RandomStream::kOrder);

}  // namespace onestep
