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
                               const AverageOptions& average)
    : name_(std::move(name)),
      flat_(flat),
      communicator_(communicator),
      micro_batches_(micro_batches),
      exact_(reduction == "exact"),
      average_(average),
      piece_(exact_ ? communicator.piece_range(flat.length()) : PieceRange{0, flat.length()}),
      tree_(static_cast<std::size_t>(flat.length())) {
  exp_avg_ = torch::zeros({piece_.length});
  exp_avg_sq_ = torch::zeros({piece_.length});
  if (average_.half_life_images > 0) reset_average();
}

void NetworkUpdater::restart(const OptimizerSpec& optimizer, std::int64_t num_updates) {
  resume(optimizer, num_updates);
  phase_updates_ = 0;
  exp_avg_.zero_();
  exp_avg_sq_.zero_();
}

void NetworkUpdater::resume(const OptimizerSpec& optimizer, std::int64_t num_updates) {
  optimizer_ = optimizer;
  num_updates_ = num_updates;
}

void NetworkUpdater::add_micro_batch() {
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

UpdateReport NetworkUpdater::step() {
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

torch::Tensor NetworkUpdater::gather_average() {
  torch::Tensor whole = torch::zeros({flat_.length()});
  whole.narrow(0, piece_.offset, piece_.length).copy_(ema_);
  if (exact_) communicator_.all_gather_pieces(span_of(whole));
  return whole;
}

void NetworkUpdater::adopt_average() {
  torch::NoGradGuard no_grad;
  flat_.values().copy_(gather_average());
}

void NetworkUpdater::reset_average() {
  ema_ = flat_.values().narrow(0, piece_.offset, piece_.length).clone();
  average_updates_ = 0;
}

double NetworkUpdater::average_distance() {
  torch::NoGradGuard no_grad;
  torch::Tensor parameters = flat_.values().narrow(0, piece_.offset, piece_.length);
  torch::Tensor difference = ema_ - parameters;
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
}

}  // namespace onestep
