#include "worker/optim/ema.h"

#include <gtest/gtest.h>

#include <vector>

#include "common/error.h"

namespace onestep {
namespace {

TEST(EmaDecay, HalvesAfterTheHalfLife) {
  double left = 1;
  for (int i = 0; i < 50; ++i) left *= ema_decay(120, 6000, 1'000'000);
  EXPECT_NEAR(left, 0.5, 1e-12);
}

TEST(EmaDecay, BeginsLow) {
  EXPECT_DOUBLE_EQ(ema_decay(1, 1e9, 0), 0.1);
  EXPECT_DOUBLE_EQ(ema_decay(1, 1e9, 1), 2.0 / 11.0);
  EXPECT_DOUBLE_EQ(ema_decay(6000, 6000, 1000), 0.5);
}

TEST(EmaLerp, MovesTowardsTheValues) {
  std::vector<float> average = {0.F, 1.F, -4.F};
  ema_lerp(average, std::vector<float>{1.F, 1.F, 4.F}, 0.75);
  EXPECT_EQ(average, (std::vector<float>{0.25F, 1.F, -2.F}));
}

TEST(EmaLerp, RefusesAnotherLength) {
  std::vector<float> average(3);
  EXPECT_THROW(ema_lerp(average, std::vector<float>(4), 0.5), Error);
}

}  // namespace
}  // namespace onestep
