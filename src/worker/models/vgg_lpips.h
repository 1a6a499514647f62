// LPIPS on VGG16, version 0.1 (Zhang et al. 2018): the learned perceptual distance of DMD's regression loss.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "common/job_spec.h"
#include "common/safetensors_file.h"
#include "worker/models/named_weights.h"
#include "worker/tensors/frozen_convolution.h"
#include "worker/tensors/torch.h"

namespace onestep {

// Every tensor that is read: torchvision's vgg16 trunk (`features.0.weight` ... `features.28.bias`, 14,714,688 parameters) and
// the five linear layers of the lpips package (`lin0.model.1.weight` [1,64,1,1] ..., 1,472 parameters).
std::vector<ExpectedTensor> lpips_tensors();

// Frozen weights; gradients flow into the first picture only. CPU and fp32 until move_to(). Otherwise immutable, any thread.
class VggLpips {
 public:
  // options.resize: pictures are first scaled to this side, bilinear with half-pixel centres (DMD: 224 for 32 and 64 pixels);
  // 0: as they are. options.pooling "average": 2x2 means in the trunk instead of maxima (piq's replace_pooling).
  // Trunk and linear layers may come from two files: give the tensors of both. Also taken: the names of the lpips package's own
  // state_dict (`net.slice1.0.weight` ..., its copies `lins.*` and `scaling_layer.*` ignored); torchvision's `classifier.*` is
  // ignored. Errors: kMismatch listing everything that doesn't fit.
  VggLpips(const std::vector<TensorView>& tensors, const std::string& where, const LpipsSpec& options);

  // The trunk to another device, its weights and activations to `dtype`; distances stay fp32.
  void move_to(const torch::Device& device, torch::ScalarType dtype);

  // x, reference [B,3,H,W] in [-1,1] -> [B]. The lpips package takes the same range; piq takes [0,1] and comes to the same, since
  // (x / 2 + 1/2 - mean) / deviation of ImageNet is (x - shift) / scale here. H, W >= 16 after resizing.
  // Differentiable in x; `reference` is a constant. Errors: kMismatch for other shapes.
  [[nodiscard]] torch::Tensor operator()(const torch::Tensor& x, const torch::Tensor& reference) const;

 private:
  static constexpr std::size_t kConvolutions = 13, kTaps = 5;
  // The trunk after relu1_2, relu2_2, relu3_3, relu4_3, relu5_3, each divided by its length over the channels.
  [[nodiscard]] std::array<torch::Tensor, kTaps> unit_features(const torch::Tensor& images) const;

  LpipsSpec options_;
  std::array<FrozenConvolution, kConvolutions> convolutions_;
  std::array<torch::Tensor, kTaps> lin_;  // [1,C,1,1]
  torch::Tensor shift_, scale_;           // [1,3,1,1]
};

}  // namespace onestep
