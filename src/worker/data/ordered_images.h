// Images of a set in the order of training.
#pragma once

#include <cstdint>

#include "common/philox.h"
#include "worker/data/image_dataset.h"
#include "worker/tensors/torch.h"

namespace onestep {

struct OrderedImages {
  torch::Tensor images;  // [count,C,H,W] fp32
  torch::Tensor labels;  // [count] int64
};

// Those at positions [position, position + count) of the order that `stream` keys (global_order.h).
OrderedImages ordered_images(const ImageDataset& dataset, std::uint64_t seed, RandomStream stream, std::int64_t position,
                             std::int64_t count);

}  // namespace onestep
