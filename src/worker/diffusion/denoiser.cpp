#include "worker/diffusion/denoiser.h"

#include "common/error.h"

namespace onestep {

void Denoiser::recompute_in_backward(bool on) {
  if (on) throw Error(ErrorCode::kConfig, "activation_checkpointing: expected false: this network has none; found true");
}

torch::Tensor Denoiser::bottleneck(const torch::Tensor&, const torch::Tensor&, const Condition&) {
  throw Error(ErrorCode::kConfig, "bottleneck: expected a network whose middle can be seen, found another");
}

ImageShape Denoiser::bottleneck_shape() const {
  throw Error(ErrorCode::kConfig, "bottleneck: expected a network whose middle can be seen, found another");
}

}  // namespace onestep
