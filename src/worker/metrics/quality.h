// Plain measures of generated images: does the detector agree, is there variety, is the ink right.
#pragma once

#include <cstdint>
#include <vector>

#include "worker/tensors/torch.h"

namespace onestep {

// Ink and variety of one set of images, pixels clamped to [-1,1], fp64.
struct PixelStats {
  // Over all images and pixels.
  double mean = 0;
  // Standard deviation of each pixel over one class's images; mean over pixels and classes.
  double spread = 0;
};

// images [N,C,H,W], labels [N] int64 in [0, num_classes). A class of fewer than two images has no
// deviation and takes no part; at least one class must have one. Errors: kMismatch.
PixelStats pixel_stats(const torch::Tensor& images, const torch::Tensor& labels,
                       std::int64_t num_classes);

struct Quality {
  double class_accuracy = 0;  // share of images whose detected class is their label
  double spread = 0;      // of the images / of the real ones: 1 is healthy, 0 is one image a class
  double mean_shift = 0;  // pixel mean minus the real one's
  std::vector<double> class_share;  // detected classes, shares of all images
  double class_balance = 0;  // least share times the number of classes: 1 is even, 0 lacks a class
};

// logits [N, num_classes] of the same images. Errors: kMismatch.
Quality measure_quality(const torch::Tensor& images, const torch::Tensor& labels,
                        const torch::Tensor& logits, const PixelStats& real);

}  // namespace onestep
