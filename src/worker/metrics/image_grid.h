// Images in [-1,1] laid out as one picture.
#pragma once

#include <cstdint>

#include "worker/metrics/picture.h"
#include "worker/tensors/torch.h"

namespace onestep {

struct GridOptions {
  std::int64_t columns = 10;
  std::int64_t scale = 2;  // each pixel becomes scale x scale
};

// images [N,C,H,W] (clamped to [-1,1]), C 1 or 3, row by row, each within a grey border; empty
// places stay grey. Bytes are trunc(clip(127.5 x + 128, 0, 255)). Errors: kMismatch.
Picture make_grid(const torch::Tensor& images, const GridOptions& options);

// Row numbers of the first per_class images of class 0, then of class 1, ...: [num_classes *
// per_class] int64, for index_select; with columns = per_class each row of a grid is a class.
// Errors: kMismatch when a class has fewer.
torch::Tensor rows_by_class(const torch::Tensor& labels, std::int64_t num_classes,
                            std::int64_t per_class);

}  // namespace onestep
