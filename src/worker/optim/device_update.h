// One update of a network's piece of its flat buffers on grid kernels: norm, clipping, AdamW, averages, the bfloat16 shadow; on a device without waiting for it.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "worker/optim/flat_adamw.h"
#include "worker/tensors/torch.h"

namespace onestep {

// fp32 tensors [length] on one device, of a length that 4 divides; the same bits as leaf_square_sums(), tree_sum(), clip_scale(), flat_adamw() and ema_lerp().
struct DeviceUpdateBuffers {
  torch::Tensor parameters, exp_avg, exp_avg_sq;
  std::vector<torch::Tensor> averages;  // at most 4
  torch::Tensor shadow;                 // bfloat16 [length], or undefined
};

// The norm is that of a whole gradient of which these buffers are a piece, cut into equal leaves whose sums of squares meet in one tree.
struct LeafRange {
  std::int64_t first = 0, count = 1;  // of this piece; `count` divides the length
  std::int64_t total = 1;
};

class DeviceUpdate {
 public:
  DeviceUpdate(DeviceUpdateBuffers buffers, const LeafRange& leaves, double max_norm);

  // The constants of update `step` (1 for the first) on their way to the device: before step(), outside of a captured graph. decays: one an average.
  // options.gradient_scale is not used: clipping decides. Does not wait: the caller may be at most kAhead updates ahead of the device.
  void set_constants(const AdamwOptions& options, std::int64_t step, std::span<const double> decays);
  // gradient fp32 [length]. exchange: fills in the leaves of the others; fp64 [leaves.total] on the device, this piece's in their place. A norm that is not
  // finite changes nothing.
  void step(const torch::Tensor& gradient, const std::function<void(const torch::Tensor& leaf_squares)>& exchange = {});
  // [3] fp64 on the device: the norm, the scale that clipping gave, 1 where the norm is finite.
  [[nodiscard]] const torch::Tensor& decision() const { return decision_; }

  static constexpr std::int64_t kAhead = 16;

  void set_max_norm(double max_norm) { max_norm_ = max_norm; }  // 0: no clipping

 private:
  DeviceUpdateBuffers buffers_;
  LeafRange leaves_;
  double max_norm_;
  torch::Tensor constants_, host_constants_;  // UpdateConstants as fp32; [kAhead] of them, used in turns
  std::int64_t num_set_ = 0;
  torch::Tensor block_squares_, leaf_squares_, decision_;
};

}  // namespace onestep
