// The Inception Score (Salimans et al. 2016): exp of the mean divergence of each image's classes from all images' classes.
#pragma once

#include <cstdint>

#include "worker/tensors/torch.h"

namespace onestep {

struct InceptionScore {
  double mean = 0, deviation = 0;  // over the splits; the deviation divided by their number, as numpy's std
};

struct InceptionScoreOptions {
  std::int64_t splits = 10;
  bool shuffle = true;       // torch-fidelity's default: numpy's RandomState(seed).permutation
  std::uint32_t seed = 2020;
};

// logits [N,K] without the last layer's bias, N >= splits; everything in fp64. Equal to torch-fidelity's isc on the same logits.
// Errors: kMismatch.
InceptionScore inception_score(const torch::Tensor& logits, const InceptionScoreOptions& options);

}  // namespace onestep
