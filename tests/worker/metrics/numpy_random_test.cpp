#include "worker/metrics/numpy_random.h"

#include <gtest/gtest.h>

#include "common/error.h"
#include "support/golden_metrics.h"

namespace onestep {
namespace {

TEST(NumpyRandom, DrawsWhatNumpyDraws) {
  const auto golden = golden_metrics();
  EXPECT_EQ(NumpyRandom(2020).permutation(60), golden.at("permutation").get<std::vector<std::int64_t>>());
  EXPECT_EQ(NumpyRandom(7).choice(1000, 20), golden.at("choices").at(0).get<std::vector<std::int64_t>>());
}

TEST(NumpyRandom, RefusesMoreThanThereIs) {
  EXPECT_TRUE(NumpyRandom(1).permutation(0).empty());
  EXPECT_EQ(NumpyRandom(1).permutation(1), std::vector<std::int64_t>{0});
  EXPECT_THROW(NumpyRandom(1).choice(3, 4), Error);
  EXPECT_THROW(NumpyRandom(1).permutation(-1), Error);
}

}  // namespace
}  // namespace onestep
