// Where the CUDA part puts its way to launch a kernel; null in a program without it. Written once, before the first thread.
#pragma once

#include "worker/tensors/grid_kernel.h"

namespace onestep {

template <class Kernel>
struct DeviceLauncher {
  // Asynchronous on PyTorch's current stream. Errors: kInternal when the launch fails.
  inline static void (*function)(const Kernel& kernel, const Grid& grid) = nullptr;
};

}  // namespace onestep
