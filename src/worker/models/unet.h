// What a preconditioner knows of the network inside it: F of EDM Eq. 7.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

#include "common/job_spec.h"
#include "worker/models/unet_block.h"
#include "worker/tensors/torch.h"

namespace onestep {

// Image channels of F's result: iDDPM's networks also predict a variance, which nobody reads.
inline std::int64_t output_channels(const NetworkSpec& spec) {
  return spec.preconditioner == "iddpm" ? 2 * spec.image_channels : spec.image_channels;
}

// The decoder's first blocks, in0 and in1, are the middle.
inline constexpr std::size_t kNumMiddleBlocks = 2;

// "32x32_block0": the published name of an entry of the encoder or the decoder.
inline std::string entry_name(std::int64_t resolution, const std::string& what) {
  return std::to_string(resolution) + "x" + std::to_string(resolution) + "_" + what;
}

inline bool attends_at(const NetworkSpec& spec, std::int64_t resolution) {
  const auto& list = spec.attention_resolutions;
  return std::find(list.begin(), list.end(), resolution) != list.end();
}

class Unet : public torch::nn::Module {
 public:
  // x [B,C,H,W] in the weights' dtype, c_noise [B] fp32, labels fp32 one-hot [B,L] (undefined without classes) ->
  // [B,C_out,H,W].
  virtual torch::Tensor forward(const torch::Tensor& x, const torch::Tensor& c_noise, const torch::Tensor& labels) = 0;
  // What leaves the middle: [B, model_channels channel_mult.back(), side, side] of the last level.
  virtual torch::Tensor bottleneck(const torch::Tensor& x, const torch::Tensor& c_noise, const torch::Tensor& labels) = 0;
  // Published initialisation, keyed by `seed` and name (under `prefix`).
  virtual void initialize(std::uint64_t seed, const std::string& prefix) = 0;

  // Activation checkpointing, block by block: less memory, one more forward pass, the same bits.
  void recompute_in_backward(bool on) {
    for (const auto& child : modules(/*include_self=*/false)) {
      if (auto* block = child->as<UnetBlockImpl>()) block->recompute_in_backward(on);
    }
  }
  // The blocks by the device's kernels, on the CPU too: for tests.
  void use_grid_kernels(bool on) {
    for (const auto& child : modules(/*include_self=*/false)) {
      if (auto* block = child->as<UnetBlockImpl>()) block->use_grid_kernels(on);
    }
  }
};

}  // namespace onestep
