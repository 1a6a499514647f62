// CUDA twin of keyed_normal.cpp: the same header, the same bits.
#include <bit>
#include <cstdint>

#include "worker/tensors/keyed_normal.h"
#include "worker/tensors/keyed_random_cuda.h"

namespace onestep {
namespace {

// Callable from both sides, since the header's constexpr templates are; on the device these are the correctly rounded
// fma and square root (nvcc's default; no fast-math flag is given).
struct DeviceOps {
  static __host__ __device__ float fma(float a, float b, float c) { return ::fmaf(a, b, c); }
  static __host__ __device__ float sqrt(float x) { return ::sqrtf(x); }
  static __host__ __device__ float as_float(std::uint32_t bits) { return std::bit_cast<float>(bits); }
  static __host__ __device__ std::uint32_t as_bits(float x) { return std::bit_cast<std::uint32_t>(x); }
};

// One thread a block of four elements; blockIdx.y is the row.
__global__ void fill_normal_kernel(std::uint64_t seed, RandomStream stream, std::uint32_t step,
                                   std::uint64_t first_sample, float* out, std::int64_t elements) {
  const std::int64_t block = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (4 * block >= elements) return;
  const std::uint64_t row = blockIdx.y;
  const auto words = keyed_words(seed, stream, step, first_sample + row, static_cast<std::uint32_t>(block));
  const auto first = normal_pair<DeviceOps>(words[0], words[1]);
  const auto second = normal_pair<DeviceOps>(words[2], words[3]);
  const float four[4] = {first[0], first[1], second[0], second[1]};
  for (int lane = 0; lane < 4 && 4 * block + lane < elements; ++lane) {
    out[row * elements + 4 * block + lane] = four[lane];
  }
}

}  // namespace

cudaError_t fill_normal_cuda(std::uint64_t seed, RandomStream stream, std::uint32_t step,
                             std::uint64_t first_sample, std::int64_t rows, std::int64_t elements, float* out,
                             cudaStream_t cuda_stream) {
  const unsigned threads = 128;
  const auto blocks = static_cast<unsigned>((elements + 4 * threads - 1) / (4 * threads));
  fill_normal_kernel<<<dim3(blocks, static_cast<unsigned>(rows)), threads, 0, cuda_stream>>>(
      seed, stream, step, first_sample, out, elements);
  return cudaGetLastError();
}

}  // namespace onestep
