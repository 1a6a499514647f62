#include "coordinator/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace onestep {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

ReadyJob ready(std::int64_t number, int ranks, double not_before = 0) {
  return {"job-" + std::to_string(number), number, ranks, false, not_before};
}
ReadyJob evaluation(std::int64_t number) {
  return {"eval-" + std::to_string(number), number, 1, true, 0};
}

std::vector<std::string> started(const std::vector<Decision>& decisions) {
  std::vector<std::string> ids;
  for (const Decision& decision : decisions) {
    if (decision.start) ids.push_back(decision.id);
  }
  return ids;
}

TEST(Scheduler, FillsTheSlotsInTheOrderOfNumbers) {
  const auto decisions = schedule({ready(3, 1), ready(1, 1), ready(2, 1)}, {}, 2, 0);
  EXPECT_THAT(started(decisions), ElementsAre("job-1", "job-2"));
  EXPECT_EQ(decisions[2].id, "job-3");
  EXPECT_EQ(decisions[2].reason, "waits for 1 slot; 0 of 2 free");
}

TEST(Scheduler, ASmallJobDoesNotPassAWideOne) {
  const auto decisions = schedule({ready(2, 2), ready(3, 1)}, {{"job-1", 1, false}}, 2, 0);
  EXPECT_THAT(started(decisions), IsEmpty());
  EXPECT_EQ(decisions[0].reason, "waits for 2 slots; 1 of 2 free");
  EXPECT_EQ(decisions[1].reason, kBehindOthers);
}

TEST(Scheduler, AJobWiderThanTheHostRunsAlone) {
  auto decisions = schedule({ready(1, 4), ready(2, 1)}, {}, 2, 0);
  EXPECT_THAT(started(decisions), ElementsAre("job-1"));
  EXPECT_THAT(decisions[0].reason, HasSubstr("runs alone, oversubscribed: 4 ranks on 2 slots"));

  decisions = schedule({ready(2, 1)}, {{"job-1", 4, false}}, 2, 0);
  EXPECT_THAT(started(decisions), IsEmpty());
  EXPECT_EQ(decisions[0].reason, "waits for 1 slot; 0 of 2 free");

  decisions = schedule({ready(2, 4)}, {{"job-1", 1, false}}, 2, 0);
  EXPECT_THAT(started(decisions), IsEmpty());
  EXPECT_THAT(decisions[0].reason, HasSubstr("waits to run alone"));
}

TEST(Scheduler, EvaluationsHoldNoSlotsAndRunOneAtATime) {
  auto decisions = schedule({evaluation(5), evaluation(6)}, {{"job-1", 2, false}}, 2, 0);
  EXPECT_THAT(started(decisions), ElementsAre("eval-5"));
  EXPECT_EQ(decisions[1].reason, "waits for the evaluation eval-5");

  decisions = schedule({evaluation(6), ready(7, 2)}, {{"eval-5", 1, true}}, 2, 0);
  EXPECT_THAT(started(decisions), ElementsAre("job-7"));
}

TEST(Scheduler, ARestartDelayKeepsThePlaceInTheOrder) {
  auto decisions = schedule({ready(1, 1, 100.5), ready(2, 1)}, {}, 1, 100.0);
  EXPECT_THAT(started(decisions), IsEmpty());
  EXPECT_EQ(decisions[0].reason, "waits a moment before the restart");
  decisions = schedule({ready(1, 1, 100.5), ready(2, 1)}, {}, 1, 100.5);
  EXPECT_THAT(started(decisions), ElementsAre("job-1"));
}

TEST(Scheduler, EveryReadyJobGetsAReason) {
  for (const Decision& decision :
       schedule({ready(1, 1), ready(2, 9), ready(3, 1), evaluation(4), evaluation(5)}, {}, 2, 0)) {
    EXPECT_FALSE(decision.reason.empty()) << decision.id;
  }
}

TEST(Scheduler, WithoutOversubscriptionAWideJobRunsOnFewerRanksOrWaits) {
  ReadyJob wide = ready(1, 8);
  wide.fewer_ranks = {4, 2, 1};
  auto decisions = schedule({wide}, {}, 6, 0, false);
  EXPECT_TRUE(decisions[0].start);
  EXPECT_EQ(decisions[0].ranks, 4);
  EXPECT_EQ(decisions[0].reason, "holds 4 of 6 slots, fewer than the 8 it asks for");
  decisions = schedule({wide}, {{"job-0", 3, false}}, 6, 0, false);
  EXPECT_EQ(decisions[0].reason, "waits for 4 slots; 3 of 6 free");
  decisions = schedule({wide}, {}, 0, 0, false);
  EXPECT_FALSE(decisions[0].start);
  wide.fewer_ranks = {};
  decisions = schedule({wide}, {}, 6, 0, false);
  EXPECT_EQ(decisions[0].reason, "has more ranks than there are slots (8 > 6) and can't run on so few");
  EXPECT_EQ(schedule({ready(1, 6)}, {}, 6, 0, false)[0].ranks, 6);
}

TEST(Scheduler, FewerRanksAreThoseThatLeaveTheBits) {
  JobSpec spec;
  spec.kind = "distill";
  spec.ranks = 8;
  spec.micro_batches = 16;
  EXPECT_THAT(fewer_ranks(spec), ElementsAre(4, 2, 1));
  spec.reduction = "fast";
  EXPECT_THAT(fewer_ranks(spec), IsEmpty());
  spec.kind = "generate_pairs";
  spec.ranks = 4;
  EXPECT_THAT(fewer_ranks(spec), ElementsAre(3, 2, 1));
}

}  // namespace
}  // namespace onestep
