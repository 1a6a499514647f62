#include "worker/data/global_order.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <vector>

#include "common/error.h"
#include "common/hash.h"

namespace onestep {
namespace {

std::vector<std::int64_t> epoch_order(std::uint64_t seed, std::int64_t rows, std::int64_t epoch) {
  std::vector<std::int64_t> order;
  for (std::int64_t i = 0; i < rows; ++i)
    order.push_back(ordered_index(seed, rows, epoch * rows + i));
  return order;
}

TEST(GlobalOrder, EachRowOnceAnEpoch) {
  for (const std::int64_t rows : {1, 2, 3, 4, 5, 7, 16, 17, 500, 5000, 65537}) {
    for (const std::int64_t epoch : {0, 1, 1000}) {
      std::vector<int> seen(static_cast<std::size_t>(rows), 0);
      for (const std::int64_t index : epoch_order(7, rows, epoch)) {
        ASSERT_GE(index, 0);
        ASSERT_LT(index, rows);
        ++seen[static_cast<std::size_t>(index)];
      }
      for (const int times : seen) ASSERT_EQ(times, 1) << rows << " rows, epoch " << epoch;
    }
  }
}

TEST(GlobalOrder, EpochsAndSeedsDiffer) {
  const auto first = epoch_order(7, 500, 0);
  for (const auto& other :
       {epoch_order(7, 500, 1), epoch_order(8, 500, 0), epoch_order(7ull + (1ull << 32), 500, 0)}) {
    int equal = 0;
    for (std::size_t i = 0; i < first.size(); ++i) equal += first[i] == other[i] ? 1 : 0;
    EXPECT_LT(equal, 10);  // two random permutations agree in one place on average
  }
}

// Over many epochs, what stands first is uniform, and so is the row that follows a given one.
TEST(GlobalOrder, FirstRowsAreUniform) {
  constexpr int kRows = 10, kEpochs = 4000;
  std::vector<int> first(kRows, 0), follower(kRows, 0);
  for (int epoch = 0; epoch < kEpochs; ++epoch) {
    const auto order = epoch_order(3, kRows, epoch);
    ++first[static_cast<std::size_t>(order[0])];
    const auto gap = (order[1] - order[0] + kRows) % kRows;
    ++follower[static_cast<std::size_t>(gap)];
  }
  double chi_first = 0, chi_follower = 0;
  for (int i = 0; i < kRows; ++i) {
    chi_first +=
        std::pow(first[static_cast<std::size_t>(i)] - kEpochs / 10.0, 2) / (kEpochs / 10.0);
    if (i > 0)
      chi_follower +=
          std::pow(follower[static_cast<std::size_t>(i)] - kEpochs / 9.0, 2) / (kEpochs / 9.0);
  }
  EXPECT_EQ(follower[0], 0);
  EXPECT_LT(chi_first, 27.9);     // 9 degrees of freedom: passed by chance with probability .999
  EXPECT_LT(chi_follower, 26.1);  // 8 degrees of freedom, the same
}

// Resuming depends on this order for ever: the digest of the first epochs is fixed.
TEST(GlobalOrder, StaysWhatItWas) {
  std::string text;
  for (std::int64_t p = 0; p < 1500; ++p) text += std::to_string(ordered_index(42, 500, p)) + ",";
  EXPECT_EQ(sha256(text), "0cb318d051fe9a5d0290e6035d0664070b276191ed58d7f0267e812ce0b07085");
}

TEST(GlobalOrder, LargeSetsNeedNoMemory) {
  constexpr std::int64_t kRows = (std::int64_t{1} << 40) + 12345;
  for (const std::int64_t position : {std::int64_t{0}, kRows - 1, 5 * kRows + 99}) {
    const auto index = ordered_index(1, kRows, position);
    EXPECT_GE(index, 0);
    EXPECT_LT(index, kRows);
  }
}

TEST(GlobalOrder, RefusesWhatHasNoOrder) {
  EXPECT_THROW(ordered_index(1, 0, 0), Error);
  EXPECT_THROW(ordered_index(1, 10, -1), Error);
  EXPECT_THROW(ordered_index(1, 1, std::int64_t{1} << 32), Error);
  EXPECT_NO_THROW(ordered_index(1, 1, (std::int64_t{1} << 32) - 1));
}

// Pairs and real images of one size and seed go by permutations of their own.
TEST(GlobalOrder, StreamsHaveOrdersOfTheirOwn) {
  constexpr std::int64_t kRows = 100;
  std::set<std::int64_t> seen;
  int equal = 0;
  for (std::int64_t position = 0; position < kRows; ++position) {
    const std::int64_t row = ordered_index(5, kRows, position, RandomStream::kRealOrder);
    seen.insert(row);
    equal += row == ordered_index(5, kRows, position) ? 1 : 0;
  }
  EXPECT_EQ(static_cast<std::int64_t>(seen.size()), kRows);
  EXPECT_LT(equal, 10);  // one on average
}

}  // namespace
}  // namespace onestep
