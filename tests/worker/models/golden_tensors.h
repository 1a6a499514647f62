// Golden tensors of a safetensors file as torch tensors, and the distance by which they are judged.
#pragma once

#include <cstring>
#include <string>

#include "common/safetensors_file.h"
#include "worker/tensors/torch.h"

namespace onestep {

inline std::string golden_path(const std::string& name) { return ONESTEP_SOURCE_DIR "/tests/golden/" + name; }

inline torch::Tensor tensor_of(const TensorView& view) {
  torch::Tensor tensor = torch::empty(view.shape);
  std::memcpy(tensor.data_ptr<float>(), view.bytes.data(), view.bytes.size());
  return tensor;
}

// norm(a - b) / norm(b).
inline double relative_error(const torch::Tensor& a, const torch::Tensor& b) {
  return ((a - b).to(torch::kFloat64).norm() / b.to(torch::kFloat64).norm()).item<double>();
}

}  // namespace onestep
