// What cuda_launch.cu and cuda_part.cpp share: nvcc does not see torch.
#pragma once

#include <cuda_runtime_api.h>

namespace onestep {

// PyTorch's, of the current device.
cudaStream_t current_stream();
// Errors: kInternal naming the call and CUDA's error.
void check_cuda(cudaError_t status, const char* call);

}  // namespace onestep
