#include "worker/tensors/keyed_random.h"

#include <gtest/gtest.h>

#include <cmath>

#include "common/hash.h"
#include "worker/tensors/keyed_fill.h"

namespace onestep {
namespace {

const DrawKey kKey{42, RandomStream::kGeneratorNoise, 7};

TEST(KeyedNormal, SameRowsForAnyCutOfTheBatch) {
  const auto whole = keyed_normal(kKey, 100, 12, {1, 5, 3});
  const auto first = keyed_normal(kKey, 100, 5, {1, 5, 3});
  const auto second = keyed_normal(kKey, 105, 7, {1, 5, 3});
  EXPECT_TRUE(torch::equal(whole, torch::cat({first, second})));
}

TEST(KeyedNormal, EveryPartOfTheKeyMatters) {
  const auto base = keyed_normal(kKey, 0, 2, {64});
  EXPECT_FALSE(torch::equal(base, keyed_normal({43, kKey.stream, kKey.step}, 0, 2, {64})));
  EXPECT_FALSE(torch::equal(base, keyed_normal({42, RandomStream::kScoreNoise, kKey.step}, 0, 2, {64})));
  EXPECT_FALSE(torch::equal(base, keyed_normal({42, kKey.stream, 8}, 0, 2, {64})));
  EXPECT_FALSE(torch::equal(base, keyed_normal(kKey, 2, 2, {64})));
}

// A million draws: sample moments within five standard errors, tails where a normal has them.
TEST(KeyedNormal, MomentsAndTailsOfANormal) {
  const auto x = keyed_normal(kKey, 0, 1000, {1000}).to(torch::kFloat64);
  EXPECT_NEAR(x.mean().item<double>(), 0, 5e-3);
  EXPECT_NEAR(x.square().mean().item<double>(), 1, 5 * std::sqrt(2.0) * 1e-3);
  EXPECT_NEAR(x.pow(4).mean().item<double>(), 3, 5 * std::sqrt(96.0) * 1e-3);
  const double beyond_2 = (x.abs() > 2).to(torch::kFloat64).mean().item<double>();
  EXPECT_NEAR(beyond_2, 0.0455003, 5 * std::sqrt(0.0455 * 0.9545) * 1e-3);
  EXPECT_GT(x.abs().max().item<double>(), 4.2);
}

// The slow twin: Box and Muller in fp64 by libm, from the same words.
TEST(KeyedNormal, AgreesWithBoxMullerInDoublePrecision) {
  double largest = 0;
  for (std::uint64_t sample = 0; sample < 2000; ++sample) {
    float four[4];
    fill_normal(kKey.seed, kKey.stream, kKey.step, sample, four, 4);
    const auto words = keyed_words(kKey.seed, kKey.stream, kKey.step, sample, 0);
    for (int pair = 0; pair < 2; ++pair) {
      const double u = ((words[2 * pair] >> 9) + 0.5) / 8388608.0;
      const double v = ((words[2 * pair + 1] >> 9) + 0.5) / 8388608.0;
      const double radius = std::sqrt(-2 * std::log(u));
      const double angle = 2 * 3.14159265358979323846 * v;
      largest = std::max(largest, std::abs(four[2 * pair] - radius * std::cos(angle)));
      largest = std::max(largest, std::abs(four[2 * pair + 1] - radius * std::sin(angle)));
    }
  }
  EXPECT_LT(largest, 2e-6);  // a few fp32 roundings of values below 6
}

// Pinned: these bits are what checkpoints and pair sets were made with; a change is a format break.
TEST(KeyedNormal, BitsArePinned) {
  std::vector<float> values(4099);
  fill_normal(1, RandomStream::kPairNoise, 2, 3, values.data(), static_cast<std::int64_t>(values.size()));
  EXPECT_EQ(sha256(values.data(), values.size() * sizeof(float)), "16e412fbd37788ad2070fdd939db7b24f04863277d7d9d663aee68014eeb1e25");
}

TEST(KeyedUniform, OpenIntervalAndMean) {
  const auto u = keyed_uniform(kKey, 0, 100000);
  EXPECT_GT(u.min().item<float>(), 0);
  EXPECT_LT(u.max().item<float>(), 1);
  EXPECT_NEAR(u.mean().item<float>(), 0.5, 5 * 0.2887 / std::sqrt(1e5));
}

TEST(KeyedInteger, CoversTheRangeEvenly) {
  const auto counts = torch::bincount(keyed_integer(kKey, 0, 100000, 10), {}, 10);
  EXPECT_EQ(counts.size(0), 10);
  EXPECT_LT((counts - 10000).abs().max().item<std::int64_t>(), 5 * 95);  // five deviations of a binomial
}

}  // namespace
}  // namespace onestep
