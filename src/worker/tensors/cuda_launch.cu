// Every grid kernel on the device: one __global__ function around the source that run_on_host() runs.
#include <cuda_runtime.h>

#include <bit>
#include <cstdint>
#include <string>

#include "common/error.h"
#include "worker/tensors/cuda_launch.h"
#include "worker/tensors/device_launcher.h"
#include "worker/tensors/device_part.h"
#include "worker/tensors/kernel_list.h"

namespace onestep {
namespace {

// Callable from both sides, as the kernels' constexpr functions are; on the device these are the correctly rounded ones (nvcc's default; no fast-math flag
// is given, and contraction is off).
struct DeviceOps {
  static __host__ __device__ float fma(float a, float b, float c) { return ::fmaf(a, b, c); }
  static __host__ __device__ float sqrt(float x) { return ::sqrtf(x); }
  static __host__ __device__ double sqrt(double x) { return ::sqrt(x); }
  static __host__ __device__ float round(float x) { return ::rintf(x); }
  static __host__ __device__ float reciprocal(float x) { return 1.0f / x; }
  static __host__ __device__ float as_float(std::uint32_t bits) { return std::bit_cast<float>(bits); }
  static __host__ __device__ std::uint32_t as_bits(float x) { return std::bit_cast<std::uint32_t>(x); }
};

template <class Kernel>
__global__ __launch_bounds__(Kernel::kMaxThreads) void run_on_device(const __grid_constant__ Kernel kernel) {
  extern __shared__ double storage[];
  auto* shared = reinterpret_cast<typename Kernel::Shared*>(storage);
  const Place place{static_cast<std::int64_t>(blockIdx.x), static_cast<std::int32_t>(threadIdx.x), static_cast<std::int32_t>(blockDim.x)};
  typename Kernel::Thread mine;
#pragma unroll
  for (int phase = 0; phase < Kernel::kPhases; ++phase) {
    if (phase > 0) __syncthreads();
    kernel.template run<DeviceOps>(phase, place, mine, shared);
  }
}

constexpr std::size_t kPlainShared = 48 * 1024;  // what needs no permission
constexpr std::int64_t kMaxBlocks = 2147483647;

template <class Kernel>
void launch_on_device(const Kernel& kernel, const Grid& grid) {
  if (grid.blocks < 1 || grid.blocks > kMaxBlocks || grid.threads < 1 || grid.threads > Kernel::kMaxThreads) {
    throw Error(ErrorCode::kInternal, "kernel launch: expected at most " + std::to_string(kMaxBlocks) + " blocks of " +
                                          std::to_string(Kernel::kMaxThreads) + " threads, found " + std::to_string(grid.blocks) + " of " +
                                          std::to_string(grid.threads));
  }
  const std::size_t bytes = static_cast<std::size_t>(grid.shared) * sizeof(typename Kernel::Shared);
  if (bytes > kPlainShared) {
    check_cuda(cudaFuncSetAttribute(run_on_device<Kernel>, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)),
               "cudaFuncSetAttribute");
  }
  run_on_device<Kernel><<<static_cast<unsigned>(grid.blocks), static_cast<unsigned>(grid.threads), bytes, current_stream()>>>(kernel);
  check_cuda(cudaGetLastError(), "kernel launch");
}

template <class... Kernels>
void install(KernelList<Kernels...>) {
  ((DeviceLauncher<Kernels>::function = launch_on_device<Kernels>), ...);
}

}  // namespace

void install_device_kernels() { install(DeviceKernels{}); }

}  // namespace onestep
