#include <ATen/Context.h>
#include <ATen/autocast_mode.h>
#include <ATen/cuda/CUDAContext.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>

#include <cstdio>
#include <cstdlib>

#include "common/error.h"
#include "worker/tensors/cuda_launch.h"
#include "worker/tensors/device_part.h"

namespace onestep {

cudaStream_t current_stream() { return c10::cuda::getCurrentCUDAStream(); }

void check_cuda(cudaError_t status, const char* call) {
  if (status != cudaSuccess) throw Error(ErrorCode::kInternal, std::string(call) + ": " + cudaGetErrorString(status));
}

int num_visible_devices() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

std::string device_description(int device) {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess || device >= count) {
    const std::string why = status != cudaSuccess ? cudaGetErrorString(status) : std::to_string(count) + " devices";
    throw Error(ErrorCode::kConfig, "device: expected CUDA device " + std::to_string(device) + ", found none: " + why);
  }
  cudaDeviceProp properties{};
  check_cuda(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties");
  char text[320];
  std::snprintf(text, sizeof text, "%s, %.1f GiB", properties.name, static_cast<double>(properties.totalGlobalMem) / (1 << 30));
  return text;
}

void prepare_device(int device, bool benchmark_convolutions) {
  setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", /*overwrite=*/0);  // cuBLAS is deterministic with it alone
  c10::cuda::set_device(static_cast<c10::DeviceIndex>(device));
  auto& context = at::globalContext();
  context.setBenchmarkCuDNN(benchmark_convolutions);
  context.setDeterministicCuDNN(true);
  context.setDeterministicAlgorithms(true, /*warn_only=*/true);
  context.setDeterministicFillUninitializedMemory(false);  // a kernel a tensor, to find bugs with
  context.setAllowTF32CuDNN(false);
  context.setAllowTF32CuBLAS(false);
  c10::cuda::setCurrentCUDAStream(c10::cuda::getStreamFromPool(/*isHighPriority=*/false, static_cast<c10::DeviceIndex>(device)));
}

void synchronize_device() { check_cuda(cudaDeviceSynchronize(), "cudaDeviceSynchronize"); }

std::size_t peak_device_bytes() {
  const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(c10::cuda::current_device());
  return static_cast<std::size_t>(stats.allocated_bytes[0].peak);
}

namespace {

class CudaGraphWork final : public RecordedWork {
 public:
  explicit CudaGraphWork(const std::function<void()>& work) {
    synchronize_device();
    // Threads of other libraries may ask their own events meanwhile: NCCL's watchdog does.
    graph_.capture_begin({0, 0}, cudaStreamCaptureModeThreadLocal);
    try {
      work();
    } catch (...) {
      // Ends the capture, so that the first error is the one that is told.
      try {
        graph_.capture_end();
      } catch (const std::exception&) {
      }
      throw;
    }
    graph_.capture_end();
  }
  void run() override { graph_.replay(); }

 private:
  at::cuda::CUDAGraph graph_;
};

}  // namespace

std::unique_ptr<RecordedWork> record(const std::function<void()>& work) {
  try {
    return std::make_unique<CudaGraphWork>(work);
  } catch (const c10::Error& error) {
    throw Error(ErrorCode::kInternal, std::string("CUDA graph: ") + error.what_without_backtrace());
  }
}

}  // namespace onestep
