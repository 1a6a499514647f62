#include "worker/comm/canonical_reduce.h"

#include <algorithm>
#include <string>
#include <utility>

#include "common/error.h"
#include "worker/comm/add_floats.h"

namespace onestep {
namespace {

// All M leaves in order, [num_leaves][num_figures]. Ranks may hold different numbers of leaves (reduction "fast"), so each sends
// room for the most that any can hold, its own number first.
std::vector<double> gather_leaves(Communicator& communicator, std::span<const double> leaves, std::int64_t num_leaves,
                                  std::size_t num_figures, LeafOrder order) {
  const auto size = static_cast<std::size_t>(communicator.size());
  const auto total = static_cast<std::size_t>(num_leaves);
  const std::size_t most = (total + size - 1) / size * num_figures;
  if (leaves.size() > most || num_figures == 0 || leaves.size() % num_figures != 0) {
    throw Error(ErrorCode::kInternal, "tree sum: expected at most " + std::to_string(most) + " values of " +
                                          std::to_string(num_figures) + " a leaf, found " +
                                          std::to_string(leaves.size()));
  }
  std::vector<double> mine(1 + most, 0.0);
  mine[0] = static_cast<double>(leaves.size());
  std::copy(leaves.begin(), leaves.end(), mine.begin() + 1);
  std::vector<double> all(mine.size() * size);
  communicator.all_gather(std::as_bytes(std::span(mine)), std::as_writable_bytes(std::span(all)));

  std::vector<double> in_order(total * num_figures);
  std::size_t position = 0, found = 0;
  for (std::size_t rank = 0; rank < size; ++rank) {
    const double* from = all.data() + rank * mine.size();
    const auto count = static_cast<std::size_t>(from[0]);
    if (order == LeafOrder::kPieces) {
      const auto piece = piece_of_rank(static_cast<int>(rank), communicator.size(), num_leaves);
      position = static_cast<std::size_t>(piece.offset) * num_figures;
      if (count != static_cast<std::size_t>(piece.length) * num_figures) found = in_order.size();  // refused below
    }
    found += count;
    if (found > in_order.size()) break;
    std::copy(from + 1, from + 1 + count, in_order.begin() + static_cast<std::ptrdiff_t>(position));
    position += count;
  }
  if (found != in_order.size()) {
    throw Error(ErrorCode::kInternal, "tree sum: expected " + std::to_string(num_leaves) + " leaves of " +
                                          std::to_string(num_figures) + " values from " + std::to_string(size) +
                                          " ranks, found another number");
  }
  return in_order;
}

}  // namespace

void TreeAccumulator::add(std::span<const float> leaf) {
  if (leaf.size() != length_) {
    throw Error(ErrorCode::kInternal, "gradient sum: expected a leaf of " + std::to_string(length_) +
                                          " floats, found " + std::to_string(leaf.size()));
  }
  if (counter_.empty() || counter_.back().level != 0) {
    std::vector<float> buffer;
    if (!spare_.empty()) {
      buffer = std::move(spare_.back());
      spare_.pop_back();
    }
    buffer.assign(leaf.begin(), leaf.end());
    counter_.push_back({0, std::move(buffer)});
    return;
  }
  // The carry of a binary counter: two sums of the same number of leaves become one.
  add_floats(counter_.back().sum.data(), leaf.data(), length_);
  ++counter_.back().level;
  while (counter_.size() > 1 && counter_[counter_.size() - 2].level == counter_.back().level) {
    Partial right = std::move(counter_.back());
    counter_.pop_back();
    add_floats(counter_.back().sum.data(), right.sum.data(), length_);
    ++counter_.back().level;
    spare_.push_back(std::move(right.sum));
  }
}

std::span<float> TreeAccumulator::finish() {
  if (counter_.empty()) throw Error(ErrorCode::kInternal, "gradient sum: expected at least one leaf, found none");
  while (counter_.size() > 1) {
    Partial right = std::move(counter_.back());
    counter_.pop_back();
    add_floats(counter_.back().sum.data(), right.sum.data(), length_);
    spare_.push_back(std::move(right.sum));
  }
  // The sum's buffer is the next one to be used: it stays untouched until the next add().
  spare_.push_back(std::move(counter_.back().sum));
  counter_.clear();
  return spare_.back();
}

std::vector<double> tree_sums(Communicator& communicator, std::span<const double> leaves, std::int64_t num_leaves,
                              std::size_t num_figures, LeafOrder order) {
  std::vector<double> sums = gather_leaves(communicator, leaves, num_leaves, num_figures, order);
  // Neighbours are added level by level; an odd one at the end goes up as it is.
  for (auto count = static_cast<std::size_t>(num_leaves); count > 1; count = (count + 1) / 2) {
    for (std::size_t pair = 0; pair < count / 2; ++pair) {
      for (std::size_t figure = 0; figure < num_figures; ++figure) {
        sums[pair * num_figures + figure] =
            sums[2 * pair * num_figures + figure] + sums[(2 * pair + 1) * num_figures + figure];
      }
    }
    if (count % 2 != 0) {
      std::copy_n(sums.begin() + static_cast<std::ptrdiff_t>((count - 1) * num_figures), num_figures,
                  sums.begin() + static_cast<std::ptrdiff_t>(count / 2 * num_figures));
    }
  }
  sums.resize(num_figures);
  return sums;
}

double tree_sum(Communicator& communicator, std::span<const double> leaves, std::int64_t num_leaves, LeafOrder order) {
  return tree_sums(communicator, leaves, num_leaves, 1, order).front();
}

}  // namespace onestep
