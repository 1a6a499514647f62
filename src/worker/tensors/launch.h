// Runs a grid kernel where its tensors lie. Programs that have the CUDA part call install_device_kernels() (device_part.h) once; in others a tensor on a
// device is refused.
#pragma once

#include "common/error.h"
#include "worker/tensors/device_launcher.h"
#include "worker/tensors/torch.h"

namespace onestep {

// `where` is one of the kernel's tensors.
template <class Kernel>
void launch(const Kernel& kernel, const torch::Tensor& where) {
  const Grid grid = kernel.grid();
  if (grid.blocks == 0) return;
  if (where.is_cpu()) {
    run_on_host(kernel, grid);
  } else if (where.is_cuda() && DeviceLauncher<Kernel>::function != nullptr) {
    DeviceLauncher<Kernel>::function(kernel, grid);
  } else {
    throw Error(ErrorCode::kConfig, "device: expected a tensor on the CPU, or a program built with CUDA, found " + where.device().str());
  }
}

}  // namespace onestep
