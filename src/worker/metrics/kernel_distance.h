// KID, the Kernel Inception Distance (Binkowski et al. 2018): an unbiased squared MMD under (x.y / D + 1)^3.
#pragma once

#include <cstdint>
#include <vector>

#include "worker/tensors/torch.h"

namespace onestep {

// The rows of both sides that enter one estimate; equally many, 2 or more.
struct KernelSubset {
  std::vector<std::int64_t> first, second;
};

// The subsets torch-fidelity draws: RandomState(seed), for each subset first the rows of one side, then of the other.
// Errors: kMismatch when a side has fewer than `size` rows.
std::vector<KernelSubset> kernel_subsets(std::int64_t first_count, std::int64_t second_count, std::int64_t subsets = 100,
                                         std::int64_t size = 1000, std::uint32_t seed = 2020);

struct KernelDistance {
  double mean = 0, deviation = 0;  // over the subsets; the deviation divided by their number, as numpy's std
};

// first [N,D], second [M,D] features; fp64. Equal to torch-fidelity's kid on the same features and subsets, whose sums are fp32.
// Errors: kMismatch for different widths or rows that aren't there.
KernelDistance kernel_distance(const torch::Tensor& first, const torch::Tensor& second, const std::vector<KernelSubset>& subsets);

}  // namespace onestep
