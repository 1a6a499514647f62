// What the algorithm knows of a discriminator: how real a noised image looks.
#pragma once

#include "worker/diffusion/denoiser.h"
#include "worker/tensors/torch.h"

namespace onestep {

// Not thread-safe; one device.
class Discriminator {
 public:
  virtual ~Discriminator() = default;
  // x_t [B,C,H,W], t [B] (units of the denoiser's schedule) -> [B] fp32: the logit of "x_t is a noised real image". Differentiable
  // in x_t and in the parameters.
  virtual torch::Tensor logit(const torch::Tensor& x_t, const torch::Tensor& t, const Condition& condition) = 0;
};

}  // namespace onestep
