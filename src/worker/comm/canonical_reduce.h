// The sum that has one order: a fixed binary tree over the M micro-batches of an iteration, at any legal rank count.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "worker/comm/communicator.h"

namespace onestep {

// A rank's own part of the tree: leaves come one after another and enter a binary counter, so that L leaves need at most
// log2(L) + 1 buffers. Buffers are kept from one iteration to the next. One thread.
class TreeAccumulator {
 public:
  // length: floats of each leaf.
  explicit TreeAccumulator(std::size_t length) : length_(length) {}

  // The next leaf, copied or added: `leaf` may be overwritten afterwards. Errors: kInternal for another length.
  void add(std::span<const float> leaf);
  // The sum ((l0+l1)+(l2+l3))+... of all leaves since the last finish(); valid, and the caller's to change, until the next add().
  // A number of leaves that is no power of two is legal too: what is left over joins from the right.
  // Errors: kInternal when there was none.
  std::span<float> finish();
  [[nodiscard]] std::size_t num_buffers() const { return spare_.size() + counter_.size(); }

 private:
  struct Partial {
    int level = 0;  // sum of 2^level leaves
    std::vector<float> sum;
  };
  std::size_t length_;
  std::vector<Partial> counter_;  // descending levels
  std::vector<std::vector<float>> spare_;
};

// Which of the M leaves a rank holds.
enum class LeafOrder {
  kRanks,   // its own micro-batches: the contiguous ones that follow those of the ranks before it
  kPieces,  // those of its piece of a flat buffer (piece_of_rank)
};

// Sums M = `num_leaves` values in one fixed binary tree: the same bits on every rank and at every legal rank count. `leaves`
// are this rank's. Collective. Errors: kInternal when the leaves of all ranks are not num_leaves together.
double tree_sum(Communicator& communicator, std::span<const double> leaves, std::int64_t num_leaves,
                LeafOrder order = LeafOrder::kRanks);
// The same for `num_figures` values a leaf, `leaves` being [local leaves][num_figures]; the sums in the order of the figures.
std::vector<double> tree_sums(Communicator& communicator, std::span<const double> leaves, std::int64_t num_leaves,
                              std::size_t num_figures, LeafOrder order = LeafOrder::kRanks);

}  // namespace onestep
