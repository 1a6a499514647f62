// The small classifier whose features serve the Fréchet distance where Inception does not fit.
#pragma once

#include <cstdint>

#include "worker/models/raw_layers.h"
#include "worker/tensors/torch.h"

namespace onestep {

// conv 3x3 -> 32, pool 2; conv 3x3 -> 64, pool 2; fc -> 64 (the features); fc -> classes; ReLU
// between. One device.
class DigitDetectorImpl final : public torch::nn::Module {
 public:
  static constexpr std::int64_t kNumFeatures = 64;

  // side: pixels of the square input, >= 4 (14: 56,394 parameters at 1 channel and 10 classes).
  DigitDetectorImpl(std::int64_t channels, std::int64_t side, std::int64_t num_classes);
  // images [B,C,side,side] fp32 in [-1,1] -> [B,64], >= 0.
  torch::Tensor features(const torch::Tensor& images);
  // features [B,64] -> [B, num_classes].
  torch::Tensor logits(const torch::Tensor& features);
  torch::Tensor forward(const torch::Tensor& images) { return logits(features(images)); }

  [[nodiscard]] std::int64_t channels() const { return channels_; }
  [[nodiscard]] std::int64_t side() const { return side_; }
  [[nodiscard]] std::int64_t num_classes() const { return num_classes_; }

 private:
  std::int64_t channels_, side_, num_classes_;
  RawConv2d conv1{nullptr}, conv2{nullptr};
  RawLinear fc1{nullptr}, fc2{nullptr};
};
TORCH_MODULE(DigitDetector);

}  // namespace onestep
