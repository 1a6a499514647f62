// What a case hands to its twin: named tensors in a safetensors file, and values of a result.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "common/safetensors_file.h"
#include "worker/tensors/torch.h"

namespace onestep {

// Tensors under names; they live as long as it does.
class Collected {
 public:
  void add(const std::string& name, const torch::Tensor& tensor) {
    const bool is_integer = tensor.scalar_type() == torch::kInt64;
    kept_.push_back(tensor.to(torch::kCPU, is_integer ? torch::kInt64 : torch::kFloat32).contiguous());
    const torch::Tensor& t = kept_.back();
    views_.push_back({name, is_integer ? DType::kI64 : DType::kF32, t.sizes().vec(), {static_cast<const std::byte*>(t.const_data_ptr()), t.nbytes()}});
  }
  [[nodiscard]] const std::vector<TensorView>& views() const { return views_; }

 private:
  std::vector<torch::Tensor> kept_;
  std::vector<TensorView> views_;
};

// About a thousand values of a result, for the other side to compare.
inline std::vector<float> values_of(const torch::Tensor& result) {
  const auto flat = result.detach().to(torch::kCPU, torch::kFloat32).contiguous().flatten();
  const auto chosen = flat.slice(0, 0, flat.numel(), std::max<std::int64_t>(1, flat.numel() / 1000)).contiguous();
  const float* first = chosen.const_data_ptr<float>();
  return {first, first + chosen.numel()};
}

}  // namespace onestep
