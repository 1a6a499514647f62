// The algorithm's Updater made real: the fixed summation tree, ranks, clipping, AdamW on this rank's piece, the average.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "common/job_spec.h"
#include "worker/comm/canonical_reduce.h"
#include "worker/comm/communicator.h"
#include "worker/dmd/updater.h"
#include "worker/run/device_updater.h"
#include "worker/tensors/flat_parameters.h"
#include "worker/tensors/torch.h"

namespace onestep {

// One flat buffer of the training state.
struct StateBuffer {
  std::string name;         // "generator.parameters"
  torch::Tensor values;     // the whole buffer, or this rank's piece of it
  bool is_piece = false;
};

struct AverageOptions {
  double half_life_images = 0;  // 0: no average is kept
  std::int64_t batch = 0;       // images an update counts for
};

// Law 2 and 3: each micro-batch's gradient enters a binary counter; ranks go on with the same tree; each rank updates its piece of
// parameters, moments and average (ZeRO-1); an all-gather spreads the parameters. With reduction "fast": plain all-reduce, every rank
// updates everything. The references must outlive the updater. Parameters that are placed on a device are updated there, by a DeviceUpdater.
class NetworkUpdater final : public Updater {
 public:
  NetworkUpdater(std::string name, FlatParameters& flat, Communicator& communicator, std::int64_t micro_batches,
                 const std::string& reduction, const AverageOptions& average, TensorCommunicator* between_devices = nullptr);
  ~NetworkUpdater() override;

  // A phase begins: fresh moments, this optimizer, a schedule over `num_updates` updates.
  void restart(const OptimizerSpec& optimizer, std::int64_t num_updates);
  // As restart(), but moments and counters stay as loaded: used when a resumed run is inside the phase.
  void resume(const OptimizerSpec& optimizer, std::int64_t num_updates);

  void add_micro_batch() override;
  UpdateReport step() override;

  // On a device, before an iteration whose step() was recorded: what changes from update to update. step() does it itself when it really runs, unless
  // `recording` was announced.
  void prepare_step();
  void set_recording(bool on) { recording_ = on; }

  [[nodiscard]] double learning_rate() const { return last_learning_rate_; }
  // The whole average on the CPU, gathered from all ranks: collective. Equal to the parameters before the first update.
  [[nodiscard]] torch::Tensor gather_average();
  [[nodiscard]] const std::string& name() const { return name_; }
  // Parameters := average, on all ranks: collective.
  void adopt_average();
  // The average starts again at the present parameters.
  void reset_average();
  // L2 distance of parameters and average over the parameters' norm; collective.
  [[nodiscard]] double average_distance();

  // For checkpoints. Buffers: parameters (whole), exp_avg, exp_avg_sq, ema (pieces).
  [[nodiscard]] std::vector<StateBuffer> buffers();
  [[nodiscard]] nlohmann::json counters() const;
  void set_counters(const nlohmann::json& counters);
  [[nodiscard]] std::int64_t piece_offset() const { return piece_.offset; }
  [[nodiscard]] std::int64_t piece_length() const { return piece_.length; }

 private:
  [[nodiscard]] double learning_rate_at(std::int64_t update) const;
  [[nodiscard]] torch::Tensor whole_average();

  std::string name_;
  FlatParameters& flat_;
  Communicator& communicator_;
  TensorCommunicator& tensors_;  // of buffers where the parameters lie
  std::int64_t micro_batches_;
  bool exact_;
  AverageOptions average_;
  PieceRange piece_;
  TreeAccumulator tree_;
  OptimizerSpec optimizer_;
  std::int64_t num_updates_ = 1;     // of the phase, for the schedule
  std::int64_t phase_updates_ = 0;   // done in this phase; also AdamW's step count
  std::int64_t average_updates_ = 0;
  double last_learning_rate_ = 0;
  torch::Tensor exp_avg_, exp_avg_sq_, ema_;  // this rank's piece
  std::unique_ptr<DeviceUpdater> device_;     // null on the CPU
  bool recording_ = false;
};

}  // namespace onestep
