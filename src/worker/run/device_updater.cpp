#include "worker/run/device_updater.h"

#include <span>

#include "common/error.h"
#include "worker/optim/ema.h"

namespace onestep {
namespace {

std::span<float> span_of(const torch::Tensor& tensor) { return {tensor.data_ptr<float>(), static_cast<std::size_t>(tensor.numel())}; }

torch::Tensor part_of(const torch::Tensor& flat, const PieceRange& piece) { return flat.narrow(0, piece.offset, piece.length); }

std::vector<torch::Tensor> copies(const torch::Tensor& values, std::size_t count) {
  std::vector<torch::Tensor> made;
  for (std::size_t i = 0; i < count; ++i) made.push_back(values.clone());
  return made;
}

}  // namespace

DeviceUpdater::DeviceUpdater(FlatParameters& network, TensorCommunicator& communicator, std::int64_t micro_batches, const std::string& reduction,
                             const OptimizerSpec& optimizer, const DeviceAverages& averages)
    : network_(network),
      communicator_(communicator),
      micro_batches_(micro_batches),
      exact_(reduction == "exact"),
      piece_(exact_ ? communicator.piece_range(network.length()) : PieceRange{0, network.length()}),
      optimizer_(optimizer),
      options_(averages),
      averages_(copies(part_of(network.values(), piece_), averages.half_lives_images.size())),
      exp_avg_(torch::zeros_like(part_of(network.values(), piece_))),
      exp_avg_sq_(torch::zeros_like(exp_avg_)),
      update_(buffers(), leaves(), optimizer.clip_norm) {}

DeviceUpdateBuffers DeviceUpdater::buffers() const {
  return {part_of(network_.values(), piece_), exp_avg_, exp_avg_sq_, averages_, network_.has_shadow() ? part_of(network_.shadow(), piece_) : torch::Tensor()};
}

// The tree of the norm has the micro-batches' number of leaves, so that it is the same at every rank count.
LeafRange DeviceUpdater::leaves() const {
  if (!exact_) return {};
  const PieceRange range = communicator_.piece_range(micro_batches_);
  return {range.offset, range.length, micro_batches_};
}

void DeviceUpdater::set_optimizer(const OptimizerSpec& optimizer, bool fresh) {
  optimizer_ = optimizer;
  update_.set_max_norm(optimizer.clip_norm);
  if (!fresh) return;
  exp_avg_.zero_();
  exp_avg_sq_.zero_();
}

void DeviceUpdater::reset_averages() {
  const torch::NoGradGuard no_grad;
  for (torch::Tensor& average : averages_) average.copy_(part_of(network_.values(), piece_));
}

void DeviceUpdater::refresh_shadow() {
  const torch::NoGradGuard no_grad;
  if (network_.has_shadow()) network_.shadow().copy_(network_.values());
}

void DeviceUpdater::begin(const Update& update) {
  std::vector<double> decays;
  for (const double half_life : options_.half_lives_images) decays.push_back(ema_decay(static_cast<double>(options_.batch), half_life, update.average_updates));
  AdamwOptions options;
  options.learning_rate = update.learning_rate;
  options.beta1 = optimizer_.beta1;
  options.beta2 = optimizer_.beta2;
  options.epsilon = optimizer_.epsilon;
  options.weight_decay = optimizer_.weight_decay;
  update_.set_constants(options, update.step, decays);
}

// The binary counter of TreeAccumulator: two sums of the same number of leaves become one.
void DeviceUpdater::add_micro_batch() {
  const torch::NoGradGuard no_grad;
  Partial carry{0, network_.gradient().to(torch::kFloat32, /*non_blocking=*/false, /*copy=*/true)};
  network_.gradient().zero_();
  while (!counter_.empty() && counter_.back().level == carry.level) {
    counter_.back().sum.add_(carry.sum);
    carry = {carry.level + 1, counter_.back().sum};
    counter_.pop_back();
  }
  counter_.push_back(carry);
}

UpdateReport DeviceUpdater::step() {
  const torch::NoGradGuard no_grad;
  if (counter_.empty()) throw Error(ErrorCode::kInternal, "gradient sum: expected at least one leaf, found none");
  while (counter_.size() > 1) {
    const torch::Tensor right = counter_.back().sum;
    counter_.pop_back();
    counter_.back().sum.add_(right);
  }
  const torch::Tensor sum = counter_.back().sum;
  counter_.clear();
  const bool alone = communicator_.size() == 1;
  if (!exact_ && !alone) communicator_.all_reduce_fast(span_of(sum));
  if (!exact_ || alone) {
    update_.step(sum);
    return {Figure(update_.decision()[0])};
  }
  communicator_.reduce_scatter_tree(span_of(sum));
  update_.step(part_of(sum, piece_), [this](const torch::Tensor& leaf_squares) {
    // A double travels as two floats: nobody adds them.
    communicator_.all_gather_pieces({static_cast<float*>(leaf_squares.data_ptr()), static_cast<std::size_t>(2 * leaf_squares.numel())});
  });
  communicator_.all_gather_pieces(span_of(network_.values()));
  refresh_shadow();
  return {Figure(update_.decision()[0])};
}

}  // namespace onestep
