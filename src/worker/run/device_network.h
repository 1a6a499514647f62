// A network's flat buffers on one device: fp32 masters, and the shadow of them that it computes with. Law 3, on a device.
#pragma once

#include <cstdint>
#include <vector>

#include "worker/tensors/flat_parameters.h"
#include "worker/tensors/torch.h"

namespace onestep {

// Moves a module's parameters and buffers to a device. Its parameters become views of `shadow`, in `dtype` (bfloat16 or fp32), and with `trainable` their
// gradients views of `gradient`; `values` are the fp32 numbers that the optimizer moves, laid out as FlatParameters. With fp32 shadow and values are one
// tensor. A frozen network's kernels are stored channels last, once, instead of at every use. The module must not be moved or re-registered afterwards.
class DeviceNetwork {
 public:
  // pieces: as in FlatParameters.
  DeviceNetwork(torch::nn::Module& module, std::int64_t pieces, bool trainable, const torch::Device& device, torch::ScalarType dtype);

  [[nodiscard]] const torch::Tensor& values() const { return values_; }      // fp32 [length]
  [[nodiscard]] const torch::Tensor& shadow() const { return shadow_; }      // dtype [length]
  [[nodiscard]] const torch::Tensor& gradient() const { return gradient_; }  // dtype [length]; autograd adds into it
  [[nodiscard]] std::int64_t length() const { return values_.size(0); }
  [[nodiscard]] const std::vector<FlatView>& views() const { return views_; }

 private:
  torch::Tensor values_, shadow_, gradient_;
  std::vector<FlatView> views_;
};

}  // namespace onestep
