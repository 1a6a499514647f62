#include "worker/diffusion/denoiser.h"

#include "common/error.h"

namespace onestep {

void Denoiser::recompute_in_backward(bool on) {
  if (on) throw Error(ErrorCode::kConfig, "activation_checkpointing: expected false: this network has none; found true");
}

}  // namespace onestep
