// What the algorithm knows of a network: an estimate of the clean image from a noisy one.
#pragma once

#include <cstdint>

#include "worker/diffusion/noise_schedule.h"
#include "worker/tensors/torch.h"

namespace onestep {

// What a batch is conditioned on; undefined members are absent.
struct Condition {
  torch::Tensor labels;  // [B] int64, class indices; -1: no label
  torch::Tensor text;    // [B, T, D] embeddings
};

struct ImageShape {
  std::int64_t channels = 0, height = 0, width = 0;
};

// mu(x_t, t): the denoised mean of DMD Eq. 4-6. Not thread-safe; one device.
class Denoiser {
 public:
  virtual ~Denoiser() = default;
  // x_t [B,C,H,W], t [B] (units of schedule(): sigma for EDM, step index for SD) -> x0 estimate [B,C,H,W], fp32.
  virtual torch::Tensor denoise(const torch::Tensor& x_t, const torch::Tensor& t, const Condition& condition) = 0;
  // What leaves the U-Net's middle, [B,C',H',W'] fp32; nothing behind it is computed. Errors: kConfig from networks without.
  virtual torch::Tensor bottleneck(const torch::Tensor& x_t, const torch::Tensor& t, const Condition& condition);
  [[nodiscard]] virtual ImageShape bottleneck_shape() const;
  // alpha_t, sigma_t of x_t = alpha_t x_0 + sigma_t epsilon.
  [[nodiscard]] virtual const NoiseSchedule& schedule() const = 0;
  // What the network itself predicts; denoise() has already converted it.
  [[nodiscard]] virtual Prediction prediction() const = 0;
  [[nodiscard]] virtual ImageShape image_shape() const = 0;
  [[nodiscard]] virtual std::int64_t num_classes() const = 0;  // 0: no labels
  // The parameters, under their published names.
  virtual torch::nn::Module& module() = 0;
  // Activation checkpointing: training keeps less and computes it again; the same bits. Errors: kConfig from networks without.
  virtual void recompute_in_backward(bool on);
};

}  // namespace onestep
