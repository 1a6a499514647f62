// Images of a set in the order of training.
#pragma once

#include <cstdint>

#include "common/philox.h"
#include "worker/tensors/torch.h"

namespace onestep {

// All of a set, or those taken from one. Immutable after construction, so any thread may read.
struct LabelledImages {
  torch::Tensor images;  // [N,C,H,W] fp32
  torch::Tensor labels;  // [N] int64
};

// Those at positions [position, position + count) of the order that `stream` keys (global_order.h).
LabelledImages ordered_images(const LabelledImages& all, std::uint64_t seed, RandomStream stream, std::int64_t position,
                              std::int64_t count);

}  // namespace onestep
