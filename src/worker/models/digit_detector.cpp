#include "worker/models/digit_detector.h"

#include <string>

#include "common/error.h"

namespace onestep {

DigitDetectorImpl::DigitDetectorImpl(std::int64_t channels, std::int64_t side,
                                     std::int64_t num_classes)
    : channels_(channels), side_(side), num_classes_(num_classes) {
  if (channels < 1 || side < 4 || num_classes < 1) {
    throw Error(ErrorCode::kConfig,
                "digit detector: expected 1 or more channels, a side of 4 or more and 1 or more "
                "classes, found " +
                    std::to_string(channels) + ", " + std::to_string(side) + ", " +
                    std::to_string(num_classes));
  }
  const std::int64_t pooled = side / 2 / 2;
  conv1 = register_module("conv1", RawConv2d(RawConvOptions{.in = channels, .out = 32}, torch::kFloat32));
  conv2 = register_module("conv2", RawConv2d(RawConvOptions{.in = 32, .out = 64}, torch::kFloat32));
  fc1 = register_module("fc1", RawLinear(64 * pooled * pooled, kNumFeatures, true, torch::kFloat32));
  fc2 = register_module("fc2", RawLinear(kNumFeatures, num_classes, true, torch::kFloat32));
}

torch::Tensor DigitDetectorImpl::features(const torch::Tensor& images) {
  if (images.dim() != 4 || images.size(1) != channels_ || images.size(2) != side_ ||
      images.size(3) != side_) {
    throw Error(ErrorCode::kMismatch, "digit detector: expected images [B," +
                                          std::to_string(channels_) + "," + std::to_string(side_) +
                                          "," + std::to_string(side_) + "], found " +
                                          c10::str(images.sizes()));
  }
  auto x = torch::max_pool2d(torch::relu(conv1->forward(images)), 2);  // (B, 32, side/2, side/2)
  x = torch::max_pool2d(torch::relu(conv2->forward(x)), 2);            // (B, 64, side/4, side/4)
  return torch::relu(fc1->forward(x.flatten(1)));
}

torch::Tensor DigitDetectorImpl::logits(const torch::Tensor& features) {
  return fc2->forward(features);
}

}  // namespace onestep
