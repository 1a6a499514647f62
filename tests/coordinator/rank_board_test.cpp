#include "coordinator/rank_board.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace onestep {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::SizeIs;

WorkerRecord rank(int number, int attempt = 1) {
  return {.job = "a-1", .attempt = attempt, .rank = number, .host = "h", .pid = 7, .connected = 100, .last_heard = 100};
}

TEST(RankBoard, KnowsWhoSpokeLast) {
  RankBoard board;
  board.joined(rank(0));
  board.joined(rank(1));
  board.heard("a-1", 1, 1, json::object(), 104);
  const std::vector<WorkerRecord> ranks = board.ranks("a-1", 105.5);
  ASSERT_THAT(ranks, SizeIs(2));
  EXPECT_EQ(ranks[0].trouble, "silent for 5.5 s");
  EXPECT_EQ(ranks[1].trouble, "");
  EXPECT_EQ(ranks[1].last_heard, 104);
}

TEST(RankBoard, ANewAttemptReplacesTheOld) {
  RankBoard board;
  board.joined(rank(0));
  board.joined(rank(1));
  board.joined(rank(0, 2));
  board.heard("a-1", 1, 0, json::object(), 200);
  const std::vector<WorkerRecord> ranks = board.ranks("a-1", 101);
  ASSERT_THAT(ranks, SizeIs(1));
  EXPECT_EQ(ranks[0].attempt, 2);
  EXPECT_EQ(ranks[0].last_heard, 100) << "of an attempt that is gone";
  board.forget("a-1");
  EXPECT_THAT(board.ranks("a-1", 101), SizeIs(0));
}

// Two ranks in step, one of which works twice as long for each: the other waits for it.
TEST(RankBoard, FindsTheSlowRankOfTwo) {
  RankBoard board;
  board.joined(rank(0));
  board.joined(rank(1));
  for (int step = 1; step <= 4; ++step) {
    board.heard("a-1", 1, 0, {{"iteration", step}, {"busy_s", 0.1 * step}}, 100 + step);
    board.heard("a-1", 1, 1, {{"iteration", step}, {"busy_s", 0.2 * step}}, 100 + step);
  }
  const std::vector<WorkerRecord> ranks = board.ranks("a-1", 104);
  EXPECT_EQ(ranks[0].trouble, "");
  EXPECT_EQ(ranks[1].trouble, "2.0 times the others' time a step");
  EXPECT_NEAR(ranks[1].seconds_a_step.value(), 0.2, 1e-9);  // a difference of a few doubles
  EXPECT_EQ(ranks[1].iteration, 4);
}

TEST(RankBoard, FindsTheRankThatFallsBehind) {
  RankBoard board;
  for (int number = 0; number < 3; ++number) {
    board.joined(rank(number));
    board.heard("a-1", 1, number, {{"iteration", number == 2 ? 7 : 10}}, 100);
  }
  EXPECT_EQ(board.ranks("a-1", 100)[1].trouble, "");
  EXPECT_THAT(board.ranks("a-1", 100)[2].trouble, HasSubstr("3 iterations behind"));
}

TEST(RankBoard, OneRankAloneIsNeverSlow) {
  RankBoard board;
  board.joined(rank(0));
  for (int step = 1; step <= 4; ++step) {
    board.heard("a-1", 1, 0, {{"iteration", step}, {"busy_s", 10.0 * step}}, 100);
  }
  EXPECT_EQ(board.ranks("a-1", 100)[0].trouble, "");
}

}  // namespace
}  // namespace onestep
