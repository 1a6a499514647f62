// Weights that tests of the feature networks and their golden recipes make alike (tools/golden/keyed_feature_nets.py).
#pragma once

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "common/safetensors_file.h"
#include "support/test_picture.h"
#include "worker/models/initialize.h"
#include "worker/models/named_weights.h"
#include "worker/tensors/torch.h"

namespace onestep {

constexpr std::uint64_t kKeyedSeed = 5;

inline torch::Tensor keyed_uniform_tensor(const std::string& name, std::vector<std::int64_t> shape, double bound) {
  torch::Tensor tensor = torch::empty(shape);
  fill_keyed_uniform(tensor, kKeyedSeed, name, bound);
  return tensor;
}

// Values that keep activations of order 1.
inline torch::Tensor keyed_weight(const std::string& name, const std::vector<std::int64_t>& shape) {
  if (name.ends_with("running_var")) return 1 + keyed_uniform_tensor(name, shape, 0.5);
  if (name.starts_with("lin")) return 0.5f + keyed_uniform_tensor(name, shape, 0.5);
  if (shape.size() == 4) {
    return keyed_uniform_tensor(name, shape, std::sqrt(6.0 / static_cast<double>(shape[1] * shape[2] * shape[3])));
  }
  if (name.ends_with("bn.weight")) return 1 + keyed_uniform_tensor(name, shape, 0.25);
  return keyed_uniform_tensor(name, shape, 0.1);
}

// A network's tensors and the views that stand for a file's.
struct KeyedWeights {
  std::vector<torch::Tensor> tensors;
  std::vector<TensorView> views;

  explicit KeyedWeights(const std::vector<ExpectedTensor>& expected) {
    for (const ExpectedTensor& tensor : expected) add(tensor.name, keyed_weight(tensor.name, tensor.shape));
  }
  void add(const std::string& name, const torch::Tensor& tensor) {
    tensors.push_back(tensor.contiguous());
    const auto& kept = tensors.back();
    views.push_back({name, DType::kF32, kept.sizes().vec(),
                     {reinterpret_cast<const std::byte*>(kept.const_data_ptr<float>()), kept.nbytes()}});
  }
};

inline double relative_difference(const torch::Tensor& a, const torch::Tensor& b) {
  return ((a - b).to(torch::kFloat64).norm() / b.to(torch::kFloat64).norm()).item<double>();
}

}  // namespace onestep
