// Keyed draws on the device; bit-equal to keyed_fill.h.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "common/philox.h"

namespace onestep {

// out [rows, elements] on the device: row i holds the normals of sample first_sample + i. rows < 65,536.
// Returns the launch error; asynchronous on `cuda_stream`.
cudaError_t fill_normal_cuda(std::uint64_t seed, RandomStream stream, std::uint32_t step,
                             std::uint64_t first_sample, std::int64_t rows, std::int64_t elements, float* out,
                             cudaStream_t cuda_stream);

}  // namespace onestep
