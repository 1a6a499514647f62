// Improved precision and recall (Kynkaanniemi et al. 2019): shares of one set within the neighbourhoods of the other.
#pragma once

#include <cstdint>

#include "worker/tensors/torch.h"

namespace onestep {

struct PrecisionRecall {
  double precision = 0;  // generated images within the ball of some real one
  double recall = 0;     // real images within the ball of some generated one
};

// real [N,D], generated [M,D]; a ball reaches to the k-th nearest neighbour in its own set, itself not counted. N, M > k.
// Distances in fp64, block by block: memory is (N + M) D and a few blocks. Equal to torch-fidelity's prc on the same features
// unless a distance ties with a radius within fp32's rounding. Errors: kMismatch.
PrecisionRecall precision_recall(const torch::Tensor& real, const torch::Tensor& generated, std::int64_t k = 3);

}  // namespace onestep
