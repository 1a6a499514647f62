// Mean and covariance of features, summed in one order: the same bits however the rows were cut and
// dealt to ranks.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "worker/tensors/torch.h"

namespace onestep {

struct FeatureStats {
  std::int64_t count = 0;
  torch::Tensor mean;        // [D] fp64
  torch::Tensor covariance;  // [D,D] fp64, divided by count - 1
};

// Rows arrive in any order and cut; row i always enters block i / kBlockRows at its place, and
// blocks are added in a binary tree over their numbers (law 2). Contiguous rows need a D x D matrix a level of the tree, not the
// rows: 32 MB each at D = 2,048. One thread.
class FeatureAccumulator {
 public:
  static constexpr std::int64_t kBlockRows = 64;

  // For rows 0 .. num_rows-1 of num_features each; num_rows >= 2.
  FeatureAccumulator(std::int64_t num_rows, std::int64_t num_features);
  // features [n,D], any floating type: rows first_row .. first_row+n-1. Errors: kInternal for a row
  // out of range or given twice, kMismatch for another width, kCorrupt for a value that is not
  // finite.
  void add(std::int64_t first_row, const torch::Tensor& features);
  // Takes over the rows another accumulator of the same size has seen; no row may be in both.
  void merge(FeatureAccumulator other);
  // The same across processes: what this one has seen, as num_parts() texts of at most D^2 + D + 3 numbers each, for
  // merge_part() of another accumulator of the same size. A rank whose rows are contiguous has few: two a level of the tree.
  [[nodiscard]] std::size_t num_parts() const { return open_.size() + nodes_.size(); }
  [[nodiscard]] std::string part(std::size_t number) const;
  // Errors: kInternal for a text that is no part of one of this size, and as merge().
  void merge_part(const std::string& part);
  // Errors: kInternal when rows are missing.
  [[nodiscard]] FeatureStats finish() const;

 private:
  struct Sums {
    torch::Tensor first;   // [D], of x
    torch::Tensor second;  // [D,D], of x x^T
  };
  struct OpenBlock {
    torch::Tensor rows;  // [rows of the block, D] fp64
    std::vector<bool> filled;
    std::int64_t missing = 0;
  };
  using Node = std::pair<int, std::int64_t>;  // (level, number): blocks [number << level, (number +
                                              // 1) << level)

  // Whether a subtree holds any of the blocks [begin, end).
  [[nodiscard]] bool is_summed(std::int64_t begin, std::int64_t end) const;
  void merge_node(Node node, Sums sums);
  void merge_block(std::int64_t block, const OpenBlock& part);
  OpenBlock& open_block(std::int64_t block);
  void close_block_if_full(std::int64_t block);
  void insert(Node node, Sums sums);

  std::int64_t num_rows_, num_features_;
  std::int64_t rows_seen_ = 0;
  std::map<std::int64_t, OpenBlock> open_;
  std::map<Node, Sums> nodes_;
};

// All rows at once: [N,D] -> statistics; equal to any way of accumulating them.
FeatureStats feature_stats(const torch::Tensor& features);

}  // namespace onestep
