// The gradient's norm, summed in one fixed order, and what to scale it by.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace onestep {

// Sum of squares in fp64: blocks of 1,024 elements one after another, each summed in sixteen lanes and a fixed tree.
double sum_of_squares(std::span<const float> values);

// Sums of squares of `num_leaves` equal parts of `values`, in order. Errors: kInternal unless they are equal.
std::vector<double> leaf_square_sums(std::span<const float> values, std::int64_t num_leaves);

// min(1, max_norm / (norm + 1e-6)), as PyTorch clips; 1 where max_norm is 0 (no clipping).
double clip_scale(double norm, double max_norm);

}  // namespace onestep
