// Iterations on a device: the first ones as they come, then one recording of them, replayed. What changes from one to the next lies at fixed addresses.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "worker/dmd/dmd_step.h"
#include "worker/run/network_updater.h"
#include "worker/tensors/device_part.h"

namespace onestep {

class DeviceLoop {
 public:
  // updaters: of every network that an iteration updates, each once; they must outlive the loop.
  DeviceLoop(const torch::Device& device, std::vector<NetworkUpdater*> updaters);

  // Another phase: what was recorded is void.
  void reset();
  // `settings` with its step and lambdas on the device, at fixed addresses.
  DmdSettings place(const DmdSettings& settings, std::uint32_t step);
  // The pairs on the device, at fixed addresses while their shapes stay. Valid until the next call.
  const std::vector<MicroBatch>& place(const std::vector<MicroBatch>& batches);

  // One iteration. `work` runs on what place() gave and is kept: it may refer to nothing that ends before the next reset(). The figures of a replay are those
  // of the report that the recording made.
  const DmdReport& run(const std::function<DmdReport()>& work);
  [[nodiscard]] bool is_recorded() const { return recorded_ != nullptr; }

 private:
  static constexpr int kEager = 3;  // until nothing is set up any more: workspaces, cuDNN's choices, NCCL's channels

  torch::Device device_;
  std::vector<NetworkUpdater*> updaters_;
  torch::Tensor step_, lambda_;
  std::vector<MicroBatch> batches_;
  std::unique_ptr<RecordedWork> recorded_;
  DmdReport report_;
  int num_eager_ = 0;
};

}  // namespace onestep
