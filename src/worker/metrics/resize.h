// From bytes of any size to what Inception takes: the three published ways, which are not interchangeable.
#pragma once

#include <cstdint>
#include <string>

#include "worker/tensors/torch.h"

namespace onestep {

enum class InceptionResize {
  kPytorchFid,  // bilinear with half-pixel centres on [0,1]; 2 x - 1
  kTf1,         // TensorFlow 1's bilinear: source = target * in / out, no half pixels, border clamped; (x - 128) / 128. EDM's
                // fid.py, StyleGAN's metrics, torch-fidelity
  kCleanFid,    // Pillow's antialiased bicubic on fp32 channels, clipped to [0,255], not rounded; (x - 128) / 128
};

// "pytorch_fid", "tf1", "clean_fid". Errors: kConfig.
InceptionResize inception_resize(const std::string& name);

// images [B,C,H,W] uint8, C 1 (repeated) or 3 -> [B,3,299,299] fp32. Errors: kMismatch.
torch::Tensor inception_input(const torch::Tensor& images, InceptionResize resize);

// images [B,C,H,W] fp32 -> [B,C,height,width] fp32, as TensorFlow 1's resize_bilinear without align_corners. Errors: kMismatch.
torch::Tensor resize_bilinear_tf1(const torch::Tensor& images, std::int64_t height, std::int64_t width);

// Generated images [B,C,H,W] fp32 in about [-1,1] -> uint8 as EDM writes them: trunc(clip(127.5 x + 128, 0, 255)).
torch::Tensor to_bytes(const torch::Tensor& images);

}  // namespace onestep
