#include "worker/metrics/feature_stats.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "common/error.h"

namespace onestep {
namespace {

torch::Tensor random_features(std::int64_t rows, std::int64_t columns) {
  torch::manual_seed(3);
  return torch::randn({rows, columns}) * 2 + 5;
}

void expect_same_bits(const FeatureStats& a, const FeatureStats& b) {
  EXPECT_EQ(a.count, b.count);
  EXPECT_TRUE(torch::equal(a.mean, b.mean));
  EXPECT_TRUE(torch::equal(a.covariance, b.covariance));
}

TEST(FeatureStats, MatchesATwinInPlainLoops) {
  constexpr std::int64_t kRows = 333, kColumns = 5;
  const auto features = random_features(kRows, kColumns);
  const auto stats = feature_stats(features);
  const auto x = features.to(torch::kFloat64);
  for (std::int64_t i = 0; i < kColumns; ++i) {
    double mean_i = 0;
    for (std::int64_t n = 0; n < kRows; ++n) mean_i += x[n][i].item<double>() / kRows;
    EXPECT_NEAR(stats.mean[i].item<double>(), mean_i, 1e-12);  // fp64 sums of 333 numbers near 5
    for (std::int64_t j = 0; j < kColumns; ++j) {
      double mean_j = 0, covariance = 0;
      for (std::int64_t n = 0; n < kRows; ++n) mean_j += x[n][j].item<double>() / kRows;
      for (std::int64_t n = 0; n < kRows; ++n) {
        covariance +=
            (x[n][i].item<double>() - mean_i) * (x[n][j].item<double>() - mean_j) / (kRows - 1);
      }
      EXPECT_NEAR(stats.covariance[i][j].item<double>(), covariance, 1e-12);
    }
  }
  EXPECT_TRUE(torch::equal(stats.covariance, stats.covariance.t()));
}

TEST(FeatureStats, DoesNotDependOnTheCut) {
  for (const std::int64_t rows : {2, 64, 65, 1000}) {
    const auto features = random_features(rows, 7);
    const auto whole = feature_stats(features);
    for (const std::int64_t batch : {1, 3, 64, 100}) {
      FeatureAccumulator accumulator(rows, 7);
      for (std::int64_t first = 0; first < rows; first += batch) {
        accumulator.add(first, features.narrow(0, first, std::min(batch, rows - first)));
      }
      expect_same_bits(accumulator.finish(), whole);
    }
  }
}

TEST(FeatureStats, DoesNotDependOnTheOrderOfBatches) {
  const auto features = random_features(1000, 4);
  FeatureAccumulator accumulator(1000, 4);
  for (std::int64_t first = 900; first >= 0; first -= 100)
    accumulator.add(first, features.narrow(0, first, 100));
  expect_same_bits(accumulator.finish(), feature_stats(features));
}

TEST(FeatureStats, DoesNotDependOnTheRanks) {
  constexpr std::int64_t kRows = 1000, kBatch = 25;
  const auto features = random_features(kRows, 4);
  const auto whole = feature_stats(features);
  for (const std::int64_t ranks : {2, 3, 4}) {
    // Batches dealt in turn, and in contiguous ranges.
    for (const bool in_turn : {true, false}) {
      std::vector<FeatureAccumulator> parts(static_cast<std::size_t>(ranks),
                                            FeatureAccumulator(kRows, 4));
      for (std::int64_t b = 0; b < kRows / kBatch; ++b) {
        const std::int64_t rank = in_turn ? b % ranks : b * ranks / (kRows / kBatch);
        parts[static_cast<std::size_t>(rank)].add(b * kBatch,
                                                  features.narrow(0, b * kBatch, kBatch));
      }
      FeatureAccumulator all(kRows, 4);
      for (auto& part : parts) all.merge(std::move(part));
      expect_same_bits(all.finish(), whole);
    }
  }
}

// As processes do it: each rank's contiguous chunks, its sums sent as texts.
TEST(FeatureStats, DoesNotDependOnTheRanksAcrossProcesses) {
  for (const auto& [rows, columns] : {std::pair<std::int64_t, std::int64_t>{1000, 7}, {700, 256}}) {
    constexpr std::int64_t kChunk = 50;
    const auto features = random_features(rows, columns);
    const auto whole = feature_stats(features);
    const std::int64_t chunks = rows / kChunk;
    for (const std::int64_t ranks : {1, 2, 4, 8}) {
      FeatureAccumulator root(rows, columns);
      for (std::int64_t rank = ranks - 1; rank >= 0; --rank) {
        FeatureAccumulator mine(rows, columns);
        for (std::int64_t chunk = chunks * rank / ranks; chunk < chunks * (rank + 1) / ranks; ++chunk) {
          mine.add(chunk * kChunk, features.narrow(0, chunk * kChunk, kChunk));
        }
        EXPECT_LE(mine.num_parts(), 2u + 2u * 4u);  // at most two open blocks, and two nodes a level of 16 blocks
        for (std::size_t part = 0; part < mine.num_parts(); ++part) root.merge_part(mine.part(part));
      }
      expect_same_bits(root.finish(), whole);
    }
  }
}

TEST(FeatureStats, RefusesPartsOfOthers) {
  FeatureAccumulator a(200, 3), b(200, 3);
  a.add(0, random_features(100, 3));
  for (std::size_t part = 0; part < a.num_parts(); ++part) b.merge_part(a.part(part));
  EXPECT_THROW(b.merge_part(a.part(0)), Error);  // twice
  EXPECT_THROW(b.merge_part(a.part(1)), Error);
  EXPECT_THROW(b.merge_part(""), Error);
  EXPECT_THROW(b.merge_part(a.part(1).substr(0, 100)), Error);
  EXPECT_THROW(FeatureAccumulator(200, 3).merge_part(a.part(1) + "x"), Error);
  EXPECT_THROW(FeatureAccumulator(200, 2).merge_part(a.part(1)), Error);
  EXPECT_THROW(FeatureAccumulator(60, 3).merge_part(a.part(0)), Error);
}

TEST(FeatureStats, RefusesRowsMissingTwiceOrOutside) {
  const auto features = random_features(200, 3);
  FeatureAccumulator accumulator(200, 3);
  accumulator.add(0, features.narrow(0, 0, 150));
  EXPECT_THROW(accumulator.finish(), Error);
  EXPECT_THROW(accumulator.add(3, features.narrow(0, 3, 1)), Error);      // in a closed block
  EXPECT_THROW(accumulator.add(149, features.narrow(0, 149, 1)), Error);  // in an open one
  EXPECT_THROW(accumulator.add(190, features.narrow(0, 0, 20)), Error);
  EXPECT_THROW(accumulator.add(-1, features.narrow(0, 0, 1)), Error);
  FeatureAccumulator other(200, 3);
  other.add(0, features.narrow(0, 0, 64));
  EXPECT_THROW(accumulator.merge(std::move(other)), Error);
}

TEST(FeatureStats, RefusesOtherWidthsAndNumbersThatAreNone) {
  FeatureAccumulator accumulator(10, 3);
  EXPECT_THROW(accumulator.add(0, torch::zeros({1, 4})), Error);
  EXPECT_THROW(accumulator.merge(FeatureAccumulator(11, 3)), Error);
  EXPECT_THROW(FeatureAccumulator(1, 3), Error);
  auto bad = torch::zeros({1, 3});
  bad[0][1] = std::numeric_limits<float>::quiet_NaN();
  try {
    accumulator.add(0, bad);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kCorrupt);
  }
}

}  // namespace
}  // namespace onestep
