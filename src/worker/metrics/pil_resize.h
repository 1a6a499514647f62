// Tensors of pictures resized as Pillow does it: rows first, then columns; on bytes bit for bit.
#pragma once

#include <cstdint>

#include "common/resample.h"
#include "worker/tensors/torch.h"

namespace onestep {

// images [B,C,H,W] uint8 -> [B,C,height,width] uint8: the bytes of Image.resize((width, height), filter) on 8-bit pictures
// (weights in 22-bit fixed point; the result of the rows is rounded to bytes before the columns).
// Errors: kMismatch for another type or an empty picture.
torch::Tensor pil_resize_bytes(const torch::Tensor& images, std::int64_t height, std::int64_t width, ResizeFilter filter);

// images [B,C,H,W] fp32 -> [B,C,height,width] fp32, each channel as Pillow's mode "F": sums in fp64, results in fp32, not
// clipped. Errors: kMismatch.
torch::Tensor pil_resize_floats(const torch::Tensor& images, std::int64_t height, std::int64_t width, ResizeFilter filter);

}  // namespace onestep
