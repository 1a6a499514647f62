#include "worker/comm/collective_watch.h"

#include <gtest/gtest.h>

namespace onestep {
namespace {

using namespace std::chrono_literals;
const auto kStart = CollectiveWatch::Clock::time_point();

TEST(CollectiveWatch, WhatEndsInTimeIsForgotten) {
  CollectiveWatch watch(1, 4, 60s);
  bool first = false, second = false;
  watch.started("sum", kStart, [&] { return first; });
  watch.started("gather", kStart, [&] { return second; });
  EXPECT_EQ(watch.poll(kStart + 59s), std::nullopt);
  first = true;
  // The second one's time begins where the first one ended.
  EXPECT_EQ(watch.poll(kStart + 60s), std::nullopt);
  EXPECT_EQ(watch.num_pending(), 1u);
  EXPECT_EQ(watch.poll(kStart + 119s), std::nullopt);
  second = true;
  EXPECT_EQ(watch.poll(kStart + 1000s), std::nullopt);
  EXPECT_EQ(watch.num_pending(), 0u);
}

TEST(CollectiveWatch, NamesTheFirstThatIsStuckAndTheRank) {
  CollectiveWatch watch(1, 4, 60s);
  watch.started("sum", kStart, [] { return true; });
  watch.started("gather of 12 floats", kStart, [] { return false; });
  watch.started("sum", kStart, [] { return false; });
  EXPECT_EQ(watch.poll(kStart + 10s), std::nullopt);
  const auto stuck = watch.poll(kStart + 75s);
  ASSERT_TRUE(stuck);
  EXPECT_EQ(stuck->find("collective 1 (gather of 12 floats) on rank 1 of 4 has not ended after 65 s; 1 wait behind it"), 0u) << *stuck;
}

// An idle hour before a collective is not the collective's.
TEST(CollectiveWatch, TimeBeginsWithTheCollective) {
  CollectiveWatch watch(0, 2, 60s);
  watch.started("sum", kStart, [] { return true; });
  EXPECT_EQ(watch.poll(kStart + 1s), std::nullopt);
  watch.started("sum", kStart + 3600s, [] { return false; });
  EXPECT_EQ(watch.poll(kStart + 3659s), std::nullopt);
  EXPECT_TRUE(watch.poll(kStart + 3660s));
}

}  // namespace
}  // namespace onestep
