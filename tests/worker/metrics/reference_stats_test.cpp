#include "worker/metrics/reference_stats.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "common/hash.h"
#include "common/npz_file.h"
#include "support/files.h"
#include "support/keyed_features.h"
#include "support/temp_folder.h"

namespace onestep {
namespace {

using ::testing::HasSubstr;

NpyArray array(std::vector<std::int64_t> shape, std::vector<double> values) { return {std::move(shape), std::move(values)}; }

std::string message_of(const std::vector<std::pair<std::string, NpyArray>>& arrays) {
  const TempFolder folder;
  write_npz(folder / "r.npz", arrays);
  const auto error = error_of([&] { read_reference_stats(folder / "r.npz", 2); });
  return error ? error->message : "no error";
}

TEST(ReferenceStats, ComeBackBitForBit) {
  const TempFolder folder;
  const FeatureStats stats = feature_stats(keyed_features("reference", 40, 6, 1));
  const std::string path = folder / "stats.npz";
  const std::string digest = write_reference_stats(path, stats);
  const ReferenceStats read = read_reference_stats(path, 6);
  EXPECT_TRUE(torch::equal(read.stats.mean, stats.mean));
  EXPECT_TRUE(torch::equal(read.stats.covariance, stats.covariance));
  EXPECT_EQ(read.stats.count, 0);
  EXPECT_FALSE(read.features.defined());
  EXPECT_EQ(read.sha256, digest);
  EXPECT_EQ(digest, sha256_file(path));
}

TEST(ReferenceStats, FeaturesGiveTheirStatistics) {
  const TempFolder folder;
  const auto features = keyed_features("reference", 40, 6, 1);
  const double* values = features.const_data_ptr<double>();
  write_npz(folder / "feats.npz", {{"feats", array({40, 6}, {values, values + 240})}});
  const ReferenceStats read = read_reference_stats(folder / "feats.npz", 6);
  EXPECT_TRUE(torch::equal(read.features, features));
  EXPECT_TRUE(torch::equal(read.stats.covariance, feature_stats(features).covariance));
  EXPECT_EQ(read.stats.count, 40);
}

TEST(ReferenceStats, WhatDoesNotFitIsNamed) {
  const auto mu = array({2}, {1, 2}), sigma = array({2, 2}, {2, 1, 1, 2});
  EXPECT_EQ(message_of({{"mu", mu}, {"sigma", sigma}}), "no error");
  EXPECT_THAT(message_of({{"mean", mu}, {"sigma", sigma}}), HasSubstr("r.npz: key `mu`: expected to be there, found only mean, sigma"));
  EXPECT_THAT(message_of({{"mu", array({3}, {1, 2, 3})}, {"sigma", sigma}}), HasSubstr("key `mu`: expected shape [2], found [3]"));
  EXPECT_THAT(message_of({{"mu", mu}, {"sigma", array({4}, {2, 1, 1, 2})}}),
              HasSubstr("key `sigma`: expected shape [2, 2], found [4]"));
  EXPECT_THAT(message_of({{"mu", mu}, {"sigma", array({2, 2}, {2, 1, 0, 2})}}), HasSubstr("key `sigma`: expected a symmetric"));
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THAT(message_of({{"mu", array({2}, {1, nan})}, {"sigma", sigma}}), HasSubstr("key `mu`: expected finite"));
  EXPECT_THAT(message_of({{"feats", array({1, 2}, {1, 2})}}), HasSubstr("key `feats`: expected shape [-1, 2], found [1, 2]"));
}

}  // namespace
}  // namespace onestep
