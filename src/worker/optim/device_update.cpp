#include "worker/optim/device_update.h"

#include <cstring>
#include <string>
#include <utility>

#include "common/error.h"
#include "worker/tensors/adamw_grid.h"
#include "worker/tensors/grid_dispatch.h"
#include "worker/tensors/launch.h"

namespace onestep {
namespace {

constexpr std::int64_t kConstants = sizeof(UpdateConstants) / sizeof(float);
using Four = Pack<float, AdamwUpdate::kWidth>;

}  // namespace

DeviceUpdate::DeviceUpdate(DeviceUpdateBuffers buffers, const LeafRange& leaves, double max_norm)
    : buffers_(std::move(buffers)), leaves_(leaves), max_norm_(max_norm) {
  const std::int64_t length = buffers_.parameters.numel();
  bool fits = leaves.count >= 1 && leaves.first >= 0 && leaves.first + leaves.count <= leaves.total &&
              length % (leaves.count * AdamwUpdate::kWidth) == 0 && buffers_.averages.size() <= static_cast<std::size_t>(kMaxAverages) &&
              buffers_.exp_avg.numel() == length && buffers_.exp_avg_sq.numel() == length &&
              (!buffers_.shadow.defined() || buffers_.shadow.numel() == length);
  for (const torch::Tensor& average : buffers_.averages) fits = fits && average.numel() == length;
  if (!fits) {
    throw Error(ErrorCode::kInternal, "device update: expected buffers of one length that " + std::to_string(leaves.count) + " leaves and " +
                                          std::to_string(AdamwUpdate::kWidth) + " divide, and at most " + std::to_string(kMaxAverages) +
                                          " averages, found " + std::to_string(length) + " elements and " + std::to_string(buffers_.averages.size()));
  }
  const auto device = buffers_.parameters.options();
  host_constants_ = torch::zeros({kAhead, kConstants}, torch::TensorOptions(torch::kFloat32).pinned_memory(!buffers_.parameters.is_cpu()));
  constants_ = torch::zeros({kConstants}, device);
  const std::int64_t leaf = length / leaves.count;
  block_squares_ = torch::empty({leaves.count, blocks_of(leaf, BlockSquares::kBlock)}, device.dtype(torch::kFloat64));
  leaf_squares_ = torch::empty({leaves.total}, device.dtype(torch::kFloat64));
  decision_ = torch::zeros({3}, device.dtype(torch::kFloat64));
}

void DeviceUpdate::set_constants(const AdamwOptions& options, std::int64_t step, std::span<const double> decays) {
  if (decays.size() != buffers_.averages.size()) {
    throw Error(ErrorCode::kInternal, "device update: expected " + std::to_string(buffers_.averages.size()) + " decays, found " + std::to_string(decays.size()));
  }
  const AdamwConstants c = adamw_constants(options, step);
  UpdateConstants constants{c.keep, c.rate, c.new1, c.beta2, c.new2, c.inverse_root, c.epsilon, {}};
  for (std::size_t i = 0; i < decays.size(); ++i) constants.average_weight[i] = static_cast<float>(1 - decays[i]);
  const torch::Tensor host = host_constants_[num_set_++ % kAhead];
  std::memcpy(host.data_ptr<float>(), &constants, sizeof constants);
  constants_.copy_(host, /*non_blocking=*/true);
}

void DeviceUpdate::step(const torch::Tensor& gradient, const std::function<void(const torch::Tensor& leaf_squares)>& exchange) {
  const std::int64_t leaf = gradient.numel() / leaves_.count;
  BlockSquares squares;
  for (std::int64_t i = 0; i < leaves_.count; ++i) {
    squares.values = data_of<float>(gradient) + i * leaf;
    squares.sums = data_of<double>(block_squares_) + i * block_squares_.size(1);
    squares.count = leaf;
    launch(squares, gradient);
  }
  LeafSquares leaves;
  leaves.blocks = data_of<double>(block_squares_);
  leaves.sums = data_of<double>(leaf_squares_) + leaves_.first;
  leaves.leaves = leaves_.count;
  leaves.blocks_a_leaf = block_squares_.size(1);
  launch(leaves, gradient);
  if (exchange) exchange(leaf_squares_);
  ClipDecision clip;
  clip.leaves = data_of<double>(leaf_squares_);
  clip.count = leaves_.total;
  clip.max_norm = max_norm_;
  clip.decision = data_of<double>(decision_);
  launch(clip, gradient);

  AdamwUpdate update;
  update.parameters = data_of<Four>(buffers_.parameters);
  update.gradient = data_of<Four>(gradient);
  update.exp_avg = data_of<Four>(buffers_.exp_avg);
  update.exp_avg_sq = data_of<Four>(buffers_.exp_avg_sq);
  for (const torch::Tensor& average : buffers_.averages) update.averages[update.num_averages++] = data_of<Four>(average);
  update.shadow = data_of<Pack<BFloat16, AdamwUpdate::kWidth>>(buffers_.shadow);
  update.constants = static_cast<const UpdateConstants*>(static_cast<const void*>(data_of<float>(constants_)));
  update.decision = data_of<double>(decision_);
  update.packs = gradient.numel() / AdamwUpdate::kWidth;
  launch(update, gradient);
}

}  // namespace onestep
