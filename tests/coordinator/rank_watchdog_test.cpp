#include "coordinator/rank_watchdog.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace onestep {
namespace {

using testing::HasSubstr;

constexpr double kStart = 1000;

class Watchdog : public testing::Test {
 protected:
  // Two ranks that said hello at kStart and did `iteration` iterations, heard `silent` seconds ago.
  WatchedAttempt two_ranks(double now, std::int64_t iteration, double silent = 0.2) const {
    WatchedAttempt attempt{.job = "distill-4", .attempt = attempt_, .num_ranks = 2, .is_training = true, .launched = kStart, .ranks = {}};
    for (int rank = 0; rank < 2; ++rank) {
      WorkerRecord record{.job = "distill-4", .attempt = attempt_, .rank = rank, .host = "node" + std::to_string(rank), .pid = 70 + rank};
      record.connected = kStart;
      record.last_heard = now - (rank == 1 ? silent : 0.2);
      record.iteration = iteration;
      record.seconds_a_step = rank == 1 ? slow_ : 1.0;
      attempt.ranks.push_back(record);
    }
    attempt.ranks = with_trouble(attempt.ranks, now);
    return attempt;
  }
  std::string codes(const WatchedAttempt& attempt, double now) {
    std::string text;
    for (const RankTrouble& one : watchdog_.look(attempt, bounds_, now)) {
      text += (text.empty() ? "" : " ") + one.code + "/" + std::to_string(one.rank);
      reason_ = one.reason;
      EXPECT_FALSE(one.hint.empty());
    }
    return text;
  }

  RankWatchdog watchdog_;
  HealthSpec bounds_;
  std::string reason_;
  int attempt_ = 1;
  double slow_ = 1.1;
};

TEST_F(Watchdog, RanksThatWorkAreLeftAlone) {
  for (int second = 0; second < 600; ++second) EXPECT_EQ(codes(two_ranks(kStart + second, second), kStart + second), "") << second;
}

TEST_F(Watchdog, ASilentRankIsNamedUntilItIsHeard) {
  EXPECT_EQ(codes(two_ranks(kStart + 40, 9, 29.5), kStart + 40), "");
  EXPECT_EQ(codes(two_ranks(kStart + 41, 9, 30.5), kStart + 41), "rank_silent/1");
  EXPECT_THAT(reason_, HasSubstr("rank 1 on node1 (process 71) was not heard for 30 s"));
  EXPECT_EQ(codes(two_ranks(kStart + 42, 9), kStart + 42), "");
}

TEST_F(Watchdog, RanksThatNeverSayHelloAreMissedLater) {
  WatchedAttempt attempt = two_ranks(kStart, 0);
  attempt.ranks.pop_back();
  EXPECT_EQ(codes(attempt, kStart + 119), "");
  attempt.ranks[0].last_heard = kStart + 120;
  attempt.ranks = with_trouble(attempt.ranks, kStart + 120);
  EXPECT_EQ(codes(attempt, kStart + 120), "rank_missing/-1");
  EXPECT_THAT(reason_, HasSubstr("1 of 2 ranks were never heard (1)"));
}

TEST_F(Watchdog, AHungRunIsSaidAfterTwentyOfItsOwnIterations) {
  double now = kStart;
  for (std::int64_t iteration = 1; iteration <= 5; ++iteration, now += 10) EXPECT_EQ(codes(two_ranks(now, iteration), now), "");
  const double last = now - 10;  // when the fifth was seen; an iteration takes 10 s: 200 s
  for (; now < last + 200; now += 1) EXPECT_EQ(codes(two_ranks(now, 5), now), "") << now - last;
  EXPECT_EQ(codes(two_ranks(now, 5), now), "rank_stalled/-1");
  EXPECT_THAT(reason_, HasSubstr("no rank has ended an iteration after 5 for 200 s"));
  EXPECT_EQ(codes(two_ranks(now + 1, 6), now + 1), "");
}

TEST_F(Watchdog, QuickIterationsHaveTwoMinutesStill) {
  for (std::int64_t second = 0; second < 10; ++second) codes(two_ranks(kStart + static_cast<double>(second), 100 * second + 1), kStart + static_cast<double>(second));
  EXPECT_EQ(codes(two_ranks(kStart + 128, 901), kStart + 128), "");
  EXPECT_EQ(codes(two_ranks(kStart + 129, 901), kStart + 129), "rank_stalled/-1");
}

TEST_F(Watchdog, OtherKindsOfJobsHaveNoSteadyIterations) {
  WatchedAttempt attempt = two_ranks(kStart + 1000, 5);
  attempt.is_training = false;
  codes(attempt, kStart + 1000);
  attempt = two_ranks(kStart + 9000, 5);
  attempt.is_training = false;
  EXPECT_EQ(codes(attempt, kStart + 9000), "");
}

TEST_F(Watchdog, AStragglerIsSaidWhenItStaysOne) {
  slow_ = 1.6;
  for (int second = 0; second < 60; ++second) EXPECT_EQ(codes(two_ranks(kStart + second, second), kStart + second), "");
  EXPECT_EQ(codes(two_ranks(kStart + 60, 60), kStart + 60), "rank_straggling/1");
  slow_ = 1.2;
  EXPECT_EQ(codes(two_ranks(kStart + 61, 61), kStart + 61), "");
  slow_ = 1.6;
  EXPECT_EQ(codes(two_ranks(kStart + 62, 62), kStart + 62), "") << "counted anew";
}

TEST_F(Watchdog, ANewAttemptBeginsAnew) {
  slow_ = 1.6;
  for (int second = 0; second <= 60; ++second) codes(two_ranks(kStart + second, second), kStart + second);
  attempt_ = 2;
  EXPECT_EQ(codes(two_ranks(kStart + 61, 1), kStart + 61), "");
}

TEST_F(Watchdog, ZeroIsOff) {
  bounds_.silent_s = bounds_.stalled_s = bounds_.straggling_s = 0;
  slow_ = 9;
  codes(two_ranks(kStart + 1, 5), kStart + 1);
  WatchedAttempt attempt = two_ranks(kStart + 9000, 5, 8000);
  EXPECT_EQ(codes(attempt, kStart + 9000), "");
  attempt.ranks.clear();
  EXPECT_EQ(codes(attempt, kStart + 9001), "");
}

}  // namespace
}  // namespace onestep
