// From tensors to the typed pointers of grid kernels: T is the tensor's dtype, W the widest pack that every tensor allows.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <type_traits>

#include "common/error.h"
#include "worker/tensors/bfloat16.h"
#include "worker/tensors/torch.h"

namespace onestep {

template <class Type, int Width>
struct PackOf {
  using T = Type;
  static constexpr int W = Width;
};

template <class T>
T* data_of(const torch::Tensor& tensor) {
  return tensor.defined() ? static_cast<T*>(tensor.data_ptr()) : nullptr;
}
template <class Pack>
auto* packs_of(const torch::Tensor& tensor, Pack /*kind*/) {
  return data_of<onestep::Pack<typename Pack::T, Pack::W>>(tensor);
}

// function(PackOf<T, W>{}): fp32 or bfloat16, by 16 bytes where `channels` and every tensor's address allow it, else value by value.
// Errors: kInternal for other dtypes.
template <class Function>
void with_packs(torch::ScalarType dtype, std::int64_t channels, std::initializer_list<torch::Tensor> tensors, Function function) {
  constexpr std::uintptr_t kBytes = 16;
  const std::int64_t width = dtype == torch::kFloat32 ? 4 : 8;
  bool wide = channels % width == 0;
  for (const torch::Tensor& tensor : tensors) {
    wide = wide && (!tensor.defined() || reinterpret_cast<std::uintptr_t>(tensor.data_ptr()) % kBytes == 0);
  }
  if (dtype == torch::kFloat32) {
    wide ? function(PackOf<float, 4>{}) : function(PackOf<float, 1>{});
  } else if (dtype == torch::kBFloat16) {
    wide ? function(PackOf<BFloat16, 8>{}) : function(PackOf<BFloat16, 1>{});
  } else {
    throw Error(ErrorCode::kInternal, std::string("grid kernel: expected fp32 or bfloat16, found ") + torch::toString(dtype));
  }
}

}  // namespace onestep
