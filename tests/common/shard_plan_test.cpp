#include "common/shard_plan.h"

#include <gtest/gtest.h>

#include <tuple>

#include "common/error.h"
#include "support/files.h"

namespace onestep {
namespace {

TEST(ShardPlan, LastShardIsShort) {
  const auto shards = plan_shards(501, 250, 2);
  ASSERT_EQ(shards.size(), 3u);
  EXPECT_EQ(shards[0].count, 250);
  EXPECT_EQ(shards[1].first, 250);
  EXPECT_EQ(shards[2].first, 500);
  EXPECT_EQ(shards[2].count, 1);
}

TEST(ShardPlan, ShardsAreDealtInTurn) {
  const auto shards = plan_shards(70, 10, 3);
  for (const Shard& shard : shards) EXPECT_EQ(shard.rank, shard.index % 3);
}

TEST(ShardPlan, RanksChangeNothingButTheRank) {
  const auto one = plan_shards(1000, 33, 1);
  const auto four = plan_shards(1000, 33, 4);
  ASSERT_EQ(one.size(), four.size());
  for (std::size_t i = 0; i < one.size(); ++i) {
    EXPECT_EQ(one[i].index, four[i].index);
    EXPECT_EQ(one[i].first, four[i].first);
    EXPECT_EQ(one[i].count, four[i].count);
    EXPECT_EQ(one[i].rank, 0);
  }
}

TEST(ShardPlan, EveryRowOnce) {
  for (std::int64_t count = 1; count <= 40; ++count) {
    for (std::int64_t rows = 1; rows <= 41; ++rows) {
      std::int64_t next = 0;
      for (const Shard& shard : plan_shards(count, rows, 3)) {
        ASSERT_EQ(shard.first, next);
        ASSERT_GE(shard.count, 1);
        ASSERT_LE(shard.count, rows);
        next += shard.count;
      }
      ASSERT_EQ(next, count);
    }
  }
}

TEST(ShardPlan, RefusesNumbersBelowOne) {
  for (const auto& [count, rows, ranks] :
       {std::tuple{0, 1, 1}, std::tuple{1, 0, 1}, std::tuple{1, 1, 0}, std::tuple{-5, 1, 1}}) {
    const auto error = error_of([&, c = count, r = rows, k = ranks] { plan_shards(c, r, k); });
    ASSERT_TRUE(error);
    EXPECT_EQ(error->code, ErrorCode::kConfig);
    EXPECT_NE(error->message.find(">= 1"), std::string::npos) << error->message;
  }
}

}  // namespace
}  // namespace onestep
