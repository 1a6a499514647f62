// The CUDA part of a program: a library of its own, since programs for the CPU must start without CUDA's libraries.
#pragma once

#include <functional>
#include <memory>
#include <string>

namespace onestep {

// Makes every kernel of kernel_list.h available to launch(). Idempotent.
void install_device_kernels();

// The device's name and memory, "NVIDIA H100 80GB HBM3, 79.1 GiB". Errors: kConfig naming why when there is none that CUDA can use.
std::string device_description(int device);

int num_visible_devices();

// How the device computes: tf32 for what is left in fp32 off, deterministic algorithms only; this thread's stream from here on is one that can be captured.
// benchmark_convolutions: cuDNN tries its deterministic algorithms at each new shape and keeps the fastest, which one run may choose otherwise than the next.
void prepare_device(int device, bool benchmark_convolutions);
void synchronize_device();
// Most bytes that tensors had on the device at once.
std::size_t peak_device_bytes();

// Work of the device that was recorded once, with every address in it, and is done again by each call of run(); asynchronous.
class RecordedWork {
 public:
  virtual ~RecordedWork() = default;
  virtual void run() = 0;
};
// Calls `work` once, which runs nothing: everything it starts on this thread's stream is recorded. It must have run some times before, so that nothing is set
// up inside. What it allocates stays reserved for the object's life. Errors: kInternal when something in it cannot be recorded.
std::unique_ptr<RecordedWork> record(const std::function<void()>& work);

}  // namespace onestep
