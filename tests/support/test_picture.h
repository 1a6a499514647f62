// Pictures that tests and golden recipes make alike (test_picture() of tools/golden/keyed_feature_nets.py), and golden tensors.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>

#include "common/safetensors_file.h"
#include "worker/tensors/torch.h"

namespace onestep {

// [1,3,height,width] uint8 in whole-number arithmetic: slow waves, fast ones and hard edges.
inline torch::Tensor keyed_picture(std::int64_t height, std::int64_t width) {
  torch::Tensor picture = torch::empty({1, 3, height, width}, torch::kUInt8);
  auto* byte = picture.data_ptr<std::uint8_t>();
  for (std::int64_t c = 0; c < 3; ++c) {
    for (std::int64_t y = 0; y < height; ++y) {
      for (std::int64_t x = 0; x < width; ++x) {
        *byte++ = static_cast<std::uint8_t>(((3 * x * x + 5 * y * y + x * y * (c + 1) + 11 * c * x) >> 6) & 255);
      }
    }
  }
  return picture;
}

inline torch::Tensor golden_tensor(const SafetensorsFile& file, const std::string& name) {
  const TensorView& view = file.at(name);
  auto tensor = torch::empty(view.shape, view.dtype == DType::kU8 ? torch::kUInt8 : torch::kFloat32);
  std::memcpy(tensor.data_ptr(), view.bytes.data(), view.bytes.size());
  return tensor;
}

}  // namespace onestep
