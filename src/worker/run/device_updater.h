// The algorithm's Updater on a device: the summation tree, clipping, AdamW and the averages without waiting for any of them. What changes from update to
// update lies in device memory, so that add_micro_batch() and step() can be captured once and replayed.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "common/job_spec.h"
#include "worker/comm/communicator.h"
#include "worker/dmd/updater.h"
#include "worker/optim/device_update.h"
#include "worker/tensors/flat_parameters.h"

namespace onestep {

struct DeviceAverages {
  std::vector<double> half_lives_images;  // one average each
  std::int64_t batch = 0;                 // images an update counts for
};

// As NetworkUpdater: each micro-batch's gradient enters a binary counter; ranks go on with the same tree; each updates its piece of parameters, moments and
// averages; an all-gather spreads the parameters. reduction "fast": plain all-reduce, every rank updates everything. What it is given must outlive it.
class DeviceUpdater final : public Updater {
 public:
  // micro_batches: of all ranks; they divide the network's length.
  DeviceUpdater(FlatParameters& network, TensorCommunicator& communicator, std::int64_t micro_batches, const std::string& reduction,
                const OptimizerSpec& optimizer, const DeviceAverages& averages);

  // A phase begins or goes on: this optimizer; `fresh`: from zero moments. What was recorded before is void.
  void set_optimizer(const OptimizerSpec& optimizer, bool fresh);
  // Every average begins again at the present parameters.
  void reset_averages();
  // The parameters were written from outside: so is what the network computes with.
  void refresh_shadow();

  // Before each iteration, outside of a captured graph: the constants of the next update on their way to the device.
  struct Update {
    double learning_rate = 0;
    std::int64_t step = 1;             // AdamW's, 1 for the first
    std::int64_t average_updates = 0;  // made so far
  };
  void begin(const Update& update);

  void add_micro_batch() override;
  UpdateReport step() override;

  // This rank's piece, fp32.
  [[nodiscard]] const torch::Tensor& average(std::size_t i) const { return averages_[i]; }
  [[nodiscard]] const torch::Tensor& exp_avg() const { return exp_avg_; }
  [[nodiscard]] const torch::Tensor& exp_avg_sq() const { return exp_avg_sq_; }
  [[nodiscard]] const PieceRange& piece() const { return piece_; }
  // [3] fp64 on the device: the norm, the scale that clipping gave, 1 where the norm is finite.
  [[nodiscard]] const torch::Tensor& decision() const { return update_.decision(); }

 private:
  struct Partial {
    int level = 0;  // sum of 2^level leaves
    torch::Tensor sum;
  };

  [[nodiscard]] DeviceUpdateBuffers buffers() const;
  [[nodiscard]] LeafRange leaves() const;

  FlatParameters& network_;
  TensorCommunicator& communicator_;
  std::int64_t micro_batches_;
  bool exact_;
  PieceRange piece_;
  OptimizerSpec optimizer_;
  DeviceAverages options_;
  std::vector<torch::Tensor> averages_;
  torch::Tensor exp_avg_, exp_avg_sq_;
  DeviceUpdate update_;
  std::vector<Partial> counter_;  // descending levels, as TreeAccumulator's
};

}  // namespace onestep
