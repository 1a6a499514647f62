// What weights are kept as: safetensors' names and libtorch's.
#pragma once

#include <optional>

#include "common/safetensors_file.h"
#include "worker/tensors/torch.h"

namespace onestep {

// kF32, kF16, kBF16; nullopt for every other dtype.
inline std::optional<torch::ScalarType> weight_type(DType dtype) {
  switch (dtype) {
    case DType::kF32: return torch::kFloat32;
    case DType::kF16: return torch::kFloat16;
    case DType::kBF16: return torch::kBFloat16;
    default: return std::nullopt;
  }
}

}  // namespace onestep
