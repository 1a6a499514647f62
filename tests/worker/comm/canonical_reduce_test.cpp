#include "worker/comm/canonical_reduce.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <random>

#include "common/error.h"
#include "worker/comm/single_communicator.h"

namespace onestep {
namespace {

using testing::ElementsAreArray;

// Floats of very different size: any other order of additions shows in the bits.
std::vector<float> random_leaf(std::size_t length, unsigned seed) {
  std::mt19937 generator(seed);
  std::uniform_real_distribution<float> mantissa(-1, 1);
  std::uniform_int_distribution<int> exponent(-12, 12);
  std::vector<float> leaf(length);
  for (float& value : leaf) value = std::ldexp(mantissa(generator), exponent(generator));
  return leaf;
}

// The slow twin: the definition, with a recursion.
template <typename Value>
Value slow_tree(const std::vector<Value>& leaves, std::size_t first, std::size_t count) {
  if (count == 1) return leaves[first];
  return slow_tree(leaves, first, count / 2) + slow_tree(leaves, first + count / 2, count / 2);
}

TEST(TreeAccumulator, AddsInTheTreesOrderWithFewBuffers) {
  constexpr std::size_t kLength = 1027;
  for (const std::size_t num_leaves : {1, 2, 4, 8, 16}) {
    TreeAccumulator tree(kLength);
    std::vector<std::vector<float>> leaves;
    for (unsigned i = 0; i < num_leaves; ++i) {
      leaves.push_back(random_leaf(kLength, i));
      tree.add(leaves.back());
    }
    const auto sum = tree.finish();
    std::size_t num_other_than_left_fold = 0;
    for (std::size_t i = 0; i < kLength; ++i) {
      std::vector<float> column;
      float fold = 0;
      for (const auto& leaf : leaves) column.push_back(leaf[i]);
      for (const float value : column) fold += value;
      ASSERT_EQ(sum[i], slow_tree(column, 0, num_leaves)) << num_leaves << " leaves, element " << i;
      num_other_than_left_fold += fold != sum[i] ? 1 : 0;
    }
    // The data can tell the orders apart.
    EXPECT_EQ(num_other_than_left_fold > 0, num_leaves >= 4);
    EXPECT_LE(tree.num_buffers(), static_cast<std::size_t>(std::bit_width(num_leaves)));
  }
}

TEST(TreeAccumulator, UsesItsBuffersAgain) {
  TreeAccumulator tree(16);
  std::vector<float> first;
  for (int round = 0; round < 3; ++round) {
    for (unsigned i = 0; i < 8; ++i) tree.add(random_leaf(16, i));
    const auto sum = tree.finish();
    if (round == 0) first.assign(sum.begin(), sum.end());
    EXPECT_THAT(sum, ElementsAreArray(first));
    EXPECT_LE(tree.num_buffers(), 4U);
    std::fill(sum.begin(), sum.end(), 1e9F);  // the caller's to change
  }
}

TEST(TreeAccumulator, TakesAnyNumberOfLeaves) {
  TreeAccumulator tree(1);
  for (const float leaf : {1.F, 2.F, 3.F, 4.F, 5.F, 6.F, 7.F}) tree.add(std::span(&leaf, 1));
  EXPECT_EQ(tree.finish()[0], 28.F);
}

TEST(TreeAccumulator, RefusesAnotherLengthAndNothingAtAll) {
  TreeAccumulator tree(4);
  EXPECT_THROW(tree.add(std::vector<float>(5)), Error);
  EXPECT_THROW(tree.finish(), Error);
}

TEST(TreeSum, OfOneProcessIsTheTree) {
  std::mt19937 generator(7);
  std::vector<double> leaves(16);
  for (double& leaf : leaves) leaf = std::exp(std::normal_distribution<double>(0, 8)(generator));
  SingleCommunicator alone;
  EXPECT_EQ(tree_sum(alone, leaves, 16), slow_tree(leaves, 0, 16));
  EXPECT_EQ(tree_sum(alone, leaves, 16, LeafOrder::kPieces), slow_tree(leaves, 0, 16));
}

TEST(TreeSum, KeepsFiguresApart) {
  SingleCommunicator alone;
  const std::vector<double> leaves = {1, 10, 2, 20, 3, 30, 4, 40};
  EXPECT_THAT(tree_sums(alone, leaves, 4, 2), ElementsAreArray({10.0, 100.0}));
  EXPECT_THAT(tree_sums(alone, std::span(leaves).first(6), 3, 2), ElementsAreArray({6.0, 60.0}));
}

TEST(TreeSum, RefusesAnotherNumberOfLeaves) {
  SingleCommunicator alone;
  const std::vector<double> leaves(3);
  EXPECT_THROW(tree_sum(alone, leaves, 4), Error);
  EXPECT_THROW(tree_sum(alone, leaves, 2), Error);
  EXPECT_THROW(tree_sum(alone, leaves, 4, LeafOrder::kPieces), Error);
}

TEST(PieceOfRank, IsTheBitReversedOne) {
  const std::vector<std::int64_t> expected = {0, 4, 2, 6, 1, 5, 3, 7};
  for (int rank = 0; rank < 8; ++rank) {
    const PieceRange piece = piece_of_rank(rank, 8, 80);
    EXPECT_EQ(piece.offset, 10 * expected[static_cast<std::size_t>(rank)]);
    EXPECT_EQ(piece.length, 10);
  }
}

TEST(PieceOfRank, RefusesWhatCannotBeHalved) {
  EXPECT_THROW(piece_of_rank(0, 3, 300), Error);
  EXPECT_THROW(piece_of_rank(0, 4, 1026), Error);
}

}  // namespace
}  // namespace onestep
