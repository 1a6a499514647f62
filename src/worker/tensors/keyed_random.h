// Draws without state: a number is a function of (seed, stream, step, global sample index, element). Law 1.
#pragma once

#include <cstdint>
#include <span>

#include "common/philox.h"
#include "worker/tensors/torch.h"

namespace onestep {

// Where a batch of draws sits: everything but the sample index.
struct DrawKey {
  std::uint64_t seed = 0;
  RandomStream stream = RandomStream::kInit;
  std::uint32_t step = 0;
  // Where defined, [1] int64: the step, read where it lies (a device), and so does the result; a captured graph draws anew when it changes. `step` is
  // ignored. Images come channels last. Rows follow each other.
  torch::Tensor device_step = {};
};

// Row i holds the draws of sample index first_sample + i; equal for any batch cut and any number of ranks.
// Standard normal, [rows, shape...] fp32; the same bits from the CUDA twin.
torch::Tensor keyed_normal(const DrawKey& key, std::int64_t first_sample, std::int64_t rows,
                           at::IntArrayRef shape);
// The same for given sample indices.
torch::Tensor keyed_normal(const DrawKey& key, std::span<const std::int64_t> samples, at::IntArrayRef shape);
// [rows] fp32 in (0, 1): ((word >> 9) + 0.5) / 2^23, exact.
torch::Tensor keyed_uniform(const DrawKey& key, std::int64_t first_sample, std::int64_t rows);
// [rows] int64 in [0, limit): high word of word * limit.
torch::Tensor keyed_integer(const DrawKey& key, std::int64_t first_sample, std::int64_t rows,
                            std::int64_t limit);

}  // namespace onestep
