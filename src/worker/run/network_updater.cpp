#include "worker/run/network_updater.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <span>

#include "common/error.h"
#include "worker/optim/clip.h"
#include "worker/optim/ema.h"
#include "worker/optim/flat_adamw.h"

namespace onestep {
namespace {

std::span<float> span_of(torch::Tensor& tensor) {
  return {tensor.data_ptr<float>(), static_cast<std::size_t>(tensor.numel())};
}

}  // namespace

NetworkUpdater::NetworkUpdater(std::string name, FlatParameters& flat, Communicator& communicator,
                               std::int64_t micro_batches, const std::string& reduction,
                               const AverageOptions& average, TensorCommunicator* between_devices)
    : name_(std::move(name)),
      flat_(flat),
      communicator_(communicator),
      tensors_(between_devices != nullptr ? *between_devices : communicator),
      micro_batches_(micro_batches),
      exact_(reduction == "exact"),
      average_(average),
      piece_(exact_ ? communicator.piece_range(flat.length()) : PieceRange{0, flat.length()}),
      tree_(static_cast<std::size_t>(flat.length())) {
  if (flat.is_placed()) {
    DeviceAverages averages{{}, average.batch};
    if (average.half_life_images > 0) averages.half_lives_images.push_back(average.half_life_images);
    device_ = std::make_unique<DeviceUpdater>(flat, tensors_, micro_batches, reduction, OptimizerSpec(), averages);
    exp_avg_ = device_->exp_avg();
    exp_avg_sq_ = device_->exp_avg_sq();
    if (average.half_life_images > 0) ema_ = device_->average(0);
    return;
  }
  exp_avg_ = torch::zeros({piece_.length});
  exp_avg_sq_ = torch::zeros({piece_.length});
  if (average_.half_life_images > 0) reset_average();
}

NetworkUpdater::~NetworkUpdater() = default;

void NetworkUpdater::restart(const OptimizerSpec& optimizer, std::int64_t num_updates) {
  resume(optimizer, num_updates);
  phase_updates_ = 0;
  exp_avg_.zero_();
  exp_avg_sq_.zero_();
}

void NetworkUpdater::resume(const OptimizerSpec& optimizer, std::int64_t num_updates) {
  optimizer_ = optimizer;
  num_updates_ = num_updates;
  if (device_) device_->set_optimizer(optimizer, /*fresh=*/false);
}

void NetworkUpdater::add_micro_batch() {
  if (device_) return device_->add_micro_batch();
  tree_.add(span_of(flat_.gradient()));
  flat_.zero_gradient();
}

double NetworkUpdater::learning_rate_at(std::int64_t update) const {
  double factor = 1;
  if (optimizer_.rampup_iterations > 0) {
    factor = std::min(1.0, static_cast<double>(update + 1) / static_cast<double>(optimizer_.rampup_iterations));
  }
  if (optimizer_.schedule == "cosine") {
    const double done = static_cast<double>(update) / static_cast<double>(num_updates_);
    factor *= 0.5 * (1 + std::cos(std::numbers::pi * done));
  }
  return optimizer_.learning_rate * factor;
}

void NetworkUpdater::prepare_step() {
  last_learning_rate_ = learning_rate_at(phase_updates_);
  ++phase_updates_;
  device_->begin({last_learning_rate_, phase_updates_, average_updates_});
  if (average_.half_life_images > 0) ++average_updates_;
}

UpdateReport NetworkUpdater::step() {
  if (device_) {
    if (!recording_) prepare_step();
    return device_->step();
  }
  // The tree over this rank's micro-batches, then over ranks; afterwards this rank's piece of the sum is whole.
  const std::span<float> sum = tree_.finish();
  if (exact_) {
    communicator_.reduce_scatter_tree(sum);
  } else {
    communicator_.all_reduce_fast(sum);
  }
  const auto first = static_cast<std::size_t>(piece_.offset);
  const auto length = static_cast<std::size_t>(piece_.length);
  const std::span<float> gradient = sum.subspan(first, length);

  const double norm =
      exact_ ? std::sqrt(tree_sum(communicator_, leaf_square_sums(gradient, micro_batches_ / communicator_.size()),
                                  micro_batches_, LeafOrder::kPieces))
             : std::sqrt(sum_of_squares(gradient));
  if (!std::isfinite(norm)) {
    throw Error(ErrorCode::kInternal, name_ + ": the gradient's norm is not finite after " +
                                          std::to_string(phase_updates_) + " updates of this phase");
  }

  last_learning_rate_ = learning_rate_at(phase_updates_);
  ++phase_updates_;
  const std::span<float> parameters = span_of(flat_.values()).subspan(first, length);
  flat_adamw(parameters, gradient, span_of(exp_avg_), span_of(exp_avg_sq_),
             {.learning_rate = last_learning_rate_,
              .beta1 = optimizer_.beta1,
              .beta2 = optimizer_.beta2,
              .epsilon = optimizer_.epsilon,
              .weight_decay = optimizer_.weight_decay,
              .gradient_scale = clip_scale(norm, optimizer_.clip_norm)},
             phase_updates_);
  if (average_.half_life_images > 0) {
    const double decay = ema_decay(static_cast<double>(average_.batch), average_.half_life_images, average_updates_);
    ema_lerp(span_of(ema_), parameters, decay);
    ++average_updates_;
  }
  if (exact_) communicator_.all_gather_pieces(span_of(flat_.values()));
  return {norm};
}

torch::Tensor NetworkUpdater::whole_average() {
  torch::Tensor whole = torch::zeros({flat_.length()}, flat_.values().options());
  whole.narrow(0, piece_.offset, piece_.length).copy_(ema_);
  if (exact_ && tensors_.size() > 1) tensors_.all_gather_pieces(span_of(whole));
  return whole;
}

torch::Tensor NetworkUpdater::gather_average() { return whole_average().cpu(); }

void NetworkUpdater::adopt_average() {
  torch::NoGradGuard no_grad;
  flat_.values().copy_(whole_average());
  if (device_) device_->refresh_shadow();
}

void NetworkUpdater::reset_average() {
  if (device_) {
    device_->reset_averages();
    average_updates_ = 0;
    return;
  }
  ema_ = flat_.values().narrow(0, piece_.offset, piece_.length).clone();
  average_updates_ = 0;
}

double NetworkUpdater::average_distance() {
  torch::NoGradGuard no_grad;
  torch::Tensor parameters = flat_.values().narrow(0, piece_.offset, piece_.length).cpu();
  torch::Tensor difference = ema_.cpu() - parameters;
  if (!exact_) return std::sqrt(sum_of_squares(span_of(difference)) / sum_of_squares(span_of(parameters)));
  const std::int64_t leaves = micro_batches_ / communicator_.size();
  const std::vector<double> differences = leaf_square_sums(span_of(difference), leaves);
  const std::vector<double> squares = leaf_square_sums(span_of(parameters), leaves);
  std::vector<double> figures;
  for (std::size_t i = 0; i < squares.size(); ++i) figures.insert(figures.end(), {differences[i], squares[i]});
  const std::vector<double> sums = tree_sums(communicator_, figures, micro_batches_, 2, LeafOrder::kPieces);
  return std::sqrt(sums[0] / sums[1]);
}

std::vector<StateBuffer> NetworkUpdater::buffers() {
  std::vector<StateBuffer> buffers = {{name_ + ".parameters", flat_.values(), false},
                                      {name_ + ".exp_avg", exp_avg_, true},
                                      {name_ + ".exp_avg_sq", exp_avg_sq_, true}};
  if (average_.half_life_images > 0) buffers.push_back({name_ + ".ema", ema_, true});
  return buffers;
}

nlohmann::json NetworkUpdater::counters() const {
  return {{"phase_updates", phase_updates_}, {"average_updates", average_updates_}};
}

void NetworkUpdater::set_counters(const nlohmann::json& counters) {
  phase_updates_ = counters.at("phase_updates").get<std::int64_t>();
  average_updates_ = counters.at("average_updates").get<std::int64_t>();
  if (device_) device_->refresh_shadow();  // the parameters were loaded
}

}  // namespace onestep
