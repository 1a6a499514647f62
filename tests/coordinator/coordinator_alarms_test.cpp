// Alarms as the coordinator keeps, tells and acts on them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "coordinator/coordinator_fixture.h"

namespace onestep {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

constexpr const char* kStop = "distill-4 a1 67";  // what the test's sender notes of a message

class Alarms : public CoordinatorTest {
 protected:
  // A distill job that runs, with `health` in its spec.
  std::string run_with(const json& health) {
    json distill = kDistill;
    distill["health"] = health;
    return run_distill(distill);
  }
  void report(std::int64_t iteration, double loss_fake, int attempt = 1) {
    const std::string stage = iteration <= 250 ? "regression" : iteration <= 310 ? "fake score" : "distill";
    const std::int64_t images = 192 * (std::min<std::int64_t>(iteration, 250) + std::max<std::int64_t>(0, iteration - 310));
    const MessageAnswer answer =
        tell({"distill-4", attempt, 0}, MessageType::kProgress,
             {{"stage", stage},
              {"iteration", iteration},
              {"images", images},
              {"images_total", 105'600},
              {"metrics", {{"loss_fake", loss_fake}, {"sample_mean", -0.7}, {"sample_spread", 0.5}, {"dm_gradient_abs", 0.3}}}});
    ASSERT_FALSE(answer.refusal) << answer.refusal->reason;
    tick(1.1);
  }
  void collapse() {
    for (std::int64_t iteration = 260; iteration <= 330; iteration += 10) report(iteration, 0.4);
    for (std::int64_t iteration = 340; iteration <= 370; iteration += 10) report(iteration, 4.0);
  }
  std::vector<json> events() {
    std::vector<json> bodies;
    for (const EventRecord& event : coordinator_->events({.types = {"alarm"}})) bodies.push_back(json::parse(event.body));
    return bodies;
  }
};

TEST_F(Alarms, ACollapseIsKeptToldOnceAndChangesNothingByDefault) {
  run_distill();
  collapse();
  const std::vector<AlarmRecord> alarms = coordinator_->alarms("distill");
  ASSERT_THAT(alarms, SizeIs(1));
  EXPECT_EQ(alarms[0].code, "fake_loss");
  EXPECT_EQ(alarms[0].since_iteration, 340);
  EXPECT_EQ(alarms[0].iteration, 360);
  EXPECT_EQ(alarms[0].action, "continue");
  EXPECT_THAT(alarms[0].reason, HasSubstr("the fake score's loss 4 is 10 times the 0.4"));
  EXPECT_EQ(alarms[0].ended, 0);
  EXPECT_EQ(job("distill-4").num_alarms, 1);
  EXPECT_EQ(state("distill-4"), "running");
  EXPECT_THAT(sent_, IsEmpty());
  ASSERT_THAT(events(), SizeIs(1));
  EXPECT_EQ(events()[0]["code"], "fake_loss");
  EXPECT_EQ(events()[0]["number"], alarms[0].number);
}

TEST_F(Alarms, TheyOutliveTheCoordinatorAndAreNotRepeated) {
  run_distill();
  for (std::int64_t iteration = 260; iteration <= 330; iteration += 10) report(iteration, 0.4);
  report(340, 4.0);
  report(350, 4.0);
  restart();
  EXPECT_THAT(coordinator_->alarms("distill"), IsEmpty());
  report(360, 4.0);  // the third of three
  EXPECT_THAT(coordinator_->alarms("distill"), SizeIs(1));
  restart();
  report(370, 4.0);
  EXPECT_THAT(coordinator_->alarms("distill"), SizeIs(1));
  die("distill-4", 1);
  tick(3);
  EXPECT_FALSE(hello("distill-4", 2).refusal);
  for (std::int64_t iteration = 310; iteration <= 400; iteration += 10) report(iteration, 4.0, 2);
  EXPECT_THAT(coordinator_->alarms("distill"), SizeIs(1)) << "what the second attempt repeats";
  EXPECT_THAT(events(), SizeIs(1));
}

TEST_F(Alarms, StopCancelsWithTheReason) {
  run_with({{"on_alarm", "stop"}});
  collapse();
  EXPECT_EQ(state("distill-4"), "stopping");
  EXPECT_THAT(job("distill-4").reason, HasSubstr("stopped by the alarm fake_loss: the fake score's loss 4"));
  EXPECT_THAT(sent_, ElementsAre(kStop));
  end("distill-4", 1, outcome("distill-4", "interrupted"));
  EXPECT_EQ(state("distill-4"), "cancelled");
  EXPECT_THAT(job("distill-4").reason, HasSubstr("stopped by the alarm fake_loss"));
  EXPECT_THAT(job("distill-4").reason, HasSubstr(", after saving"));
}

TEST_F(Alarms, AStopIsToldByTheNextCoordinatorToo) {
  run_with({{"on_alarm", "stop"}});
  collapse();
  sent_.clear();
  restart();
  tick();
  EXPECT_THAT(sent_, ElementsAre(kStop));
  tick();
  EXPECT_THAT(sent_, SizeIs(1)) << "once";
}

TEST_F(Alarms, CheckpointAsksForOneAndGoesOn) {
  run_with({{"on_alarm", "checkpoint"}});
  collapse();
  EXPECT_EQ(state("distill-4"), "running");
  EXPECT_THAT(sent_, ElementsAre("distill-4 a1 68"));
  EXPECT_EQ(coordinator_->alarms("distill")[0].action, "checkpoint");
}

TEST_F(Alarms, AResumedJobStartsWithoutThemAndIsCalledAgain) {
  run_with({{"on_alarm", "stop"}});
  collapse();
  end("distill-4", 1, outcome("distill-4", "interrupted"));
  coordinator_->resume("distill-4");
  EXPECT_EQ(job("distill-4").num_alarms, 0);
  EXPECT_GT(coordinator_->alarms("distill")[0].ended, 0);
  tick();
  EXPECT_FALSE(hello("distill-4", 2).refusal);
  for (std::int64_t iteration = 340; iteration <= 360; iteration += 10) report(iteration, 4.0, 2);
  EXPECT_THAT(coordinator_->alarms("distill"), SizeIs(2));
  EXPECT_EQ(state("distill-4"), "stopping");
}

TEST_F(Alarms, AFigureThatIsNotFinite) {
  run_distill();
  report(10, std::nan(""));
  ASSERT_THAT(coordinator_->alarms("distill"), SizeIs(1));
  EXPECT_EQ(coordinator_->alarms("distill")[0].code, "non_finite");
  EXPECT_TRUE(events()[0]["value"].is_null());
  restart();
  EXPECT_TRUE(std::isnan(coordinator_->alarms("distill")[0].value));
}

TEST_F(Alarms, ASilentRankUntilItIsHeardOrItsAttemptEnds) {
  run_distill();
  for (int i = 0; i < 32; ++i) tick(1);
  std::vector<AlarmRecord> alarms = coordinator_->alarms("distill");
  ASSERT_THAT(alarms, SizeIs(1));
  EXPECT_EQ(alarms[0].code, "rank_silent");
  EXPECT_EQ(alarms[0].rank, 0);
  tell({"distill-4", 1, 0}, MessageType::kHeartbeat, json::object());
  tick(1.1);
  EXPECT_GT(coordinator_->alarms("distill")[0].ended, 0);
  EXPECT_EQ(job("distill-4").num_alarms, 0);
  EXPECT_THAT(events(), SizeIs(2));
  for (int i = 0; i < 40; ++i) tick(1);
  EXPECT_EQ(job("distill-4").num_alarms, 1);
  die("distill-4", 1);
  EXPECT_EQ(job("distill-4").num_alarms, 0) << "no rank is left to be silent";
}

TEST_F(Alarms, ARankAlarmThatHoldsIsKnownAfterARestart) {
  run_distill();
  for (int i = 0; i < 32; ++i) tick(1);
  restart();
  EXPECT_EQ(job("distill-4").num_alarms, 1);
  EXPECT_FALSE(hello("distill-4", 1).refusal);
  tick(1.1);
  EXPECT_EQ(job("distill-4").num_alarms, 0);
  EXPECT_THAT(coordinator_->alarms("distill"), SizeIs(1));
}

TEST_F(Alarms, CountsAreByCode) {
  run_distill();
  collapse();
  const std::vector<AlarmCount> counts = coordinator_->alarm_counts();
  ASSERT_THAT(counts, SizeIs(1));
  EXPECT_EQ(counts[0].code, "fake_loss");
  EXPECT_EQ(counts[0].raised, 1);
  EXPECT_EQ(counts[0].holding, 1);
}

}  // namespace
}  // namespace onestep
