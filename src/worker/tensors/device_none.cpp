// The CUDA part's place in a program for the CPU alone: there is no device, and recorded work is done again from the start.
#include <utility>

#include "common/error.h"
#include "worker/tensors/device_part.h"

namespace onestep {
namespace {

class RepeatedWork final : public RecordedWork {
 public:
  explicit RepeatedWork(std::function<void()> work) : work_(std::move(work)) {}
  void run() override { work_(); }

 private:
  std::function<void()> work_;
};

}  // namespace

void install_device_kernels() {}

int num_visible_devices() { return 0; }

std::string device_description(int device) {
  throw Error(ErrorCode::kConfig, "device: expected a program built with CUDA for device " + std::to_string(device) + ", found one for the CPU alone");
}

void prepare_device(int device, bool /*benchmark_convolutions*/) { static_cast<void>(device_description(device)); }
void synchronize_device() {}
std::size_t peak_device_bytes() { return 0; }
std::unique_ptr<RecordedWork> record(const std::function<void()>& work) { return std::make_unique<RepeatedWork>(work); }

}  // namespace onestep
