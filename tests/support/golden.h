// Golden files and the networks that they speak of: tensors as tensors, keyed weights, relative errors, digests of key lists.
#pragma once

#include <cmath>
#include <cstring>
#include <string>

#include "common/hash.h"
#include "common/safetensors_file.h"
#include "worker/models/initialize.h"
#include "worker/tensors/torch.h"

namespace onestep {

inline constexpr std::uint64_t kGoldenSeed = 11;  // tools/golden/make_sd_golden.py

inline torch::Tensor golden_tensor(const SafetensorsFile& file, const std::string& name) {
  const TensorView& view = file.at(name);
  const auto type = view.dtype == DType::kI64 ? torch::kInt64 : view.dtype == DType::kF64 ? torch::kFloat64 : torch::kFloat32;
  torch::Tensor tensor = torch::empty(view.shape, type);
  std::memcpy(tensor.mutable_data_ptr(), view.bytes.data(), view.bytes.size());
  return tensor;
}

// norm(a - b) / norm(b), in fp64.
inline double relative_error(const torch::Tensor& a, const torch::Tensor& b) {
  const auto expected = b.to(torch::kFloat64);
  return ((a.to(torch::kFloat64) - expected).norm() / expected.norm()).item<double>();
}

// An input of the recipe: unit variance unless told otherwise.
inline torch::Tensor golden_draw(const std::string& name, at::IntArrayRef shape, double bound = std::sqrt(3.0)) {
  torch::Tensor values = torch::empty(shape);
  fill_keyed_uniform(values, kGoldenSeed, name, bound);
  return values;
}

// The recipe's fill(): weights keep the variance of what they map, norms lie around one.
inline void fill_golden(torch::nn::Module& network) {
  torch::NoGradGuard no_grad;
  for (auto& item : network.named_parameters()) {
    torch::Tensor& parameter = item.value();
    const bool vector = parameter.dim() == 1, weight = item.key().ends_with("weight");
    const double fan_in = static_cast<double>(parameter.numel()) / static_cast<double>(parameter.size(0));
    fill_keyed_uniform(parameter, kGoldenSeed, item.key(), !vector ? std::sqrt(3 / fan_in) : weight ? 0.5 : 0.1);
    if (vector && weight) parameter.add_(1);
  }
}

// SHA-256 over "name [shape]" lines in the order of the parameters.
inline std::string key_list_sha256(const torch::nn::Module& network) {
  std::string lines;
  for (const auto& item : network.named_parameters()) {
    lines += item.key() + " [";
    for (std::int64_t i = 0; i < item.value().dim(); ++i) {
      lines += (i > 0 ? ", " : "") + std::to_string(item.value().size(i));
    }
    lines += "]\n";
  }
  return sha256(lines);
}

inline std::int64_t num_parameters(const torch::nn::Module& network) {
  std::int64_t count = 0;
  for (const auto& parameter : network.parameters()) count += parameter.numel();
  return count;
}

}  // namespace onestep
