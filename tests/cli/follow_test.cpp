#include "cli/follow.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "cli/progress_view.h"
#include "support/files.h"

namespace onestep {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

json job(const std::string& name, const std::string& state, const std::string& parent = "") {
  return {{"name", name},  {"kind", "distill"}, {"state", state},  {"attempts", 1},
          {"digest", "d"}, {"reason", "why"},   {"parent", parent}};
}

// Plays a list of answers, the last one for ever; an empty answer means that nobody is there. Time is what was slept.
struct Script {
  std::vector<json> answers;
  std::size_t next = 0;
  double now = 0.0;

  FollowHooks hooks() {
    return {.fetch =
                [this] {
                  const json answer = answers[std::min(next++, answers.size() - 1)];
                  if (answer.is_null()) throw Error(ErrorCode::kUnavailable, "nobody there");
                  return answer;
                },
            .now_s = [this] { return now; },
            .sleep_s = [this](double seconds) { now += seconds; }};
  }
};

struct Watched {
  FollowResult result;
  std::string text;
};

Watched watch(Script& script) {
  std::ostringstream out;
  ProgressView view(out, false, 80);
  FollowResult result = follow_pipeline(script.hooks(), view, {});
  return {std::move(result), out.str()};
}

json answer(std::vector<json> jobs) { return {{"jobs", jobs}}; }

TEST(Follow, EndsWhenEveryJobHasSucceeded) {
  Script script{{answer({job("a", "running"), job("b", "waiting")}), answer({job("a", "succeeded"), job("b", "running")}),
                 answer({job("a", "succeeded"), job("b", "succeeded")})}};
  const Watched watched = watch(script);
  EXPECT_TRUE(watched.result.succeeded);
  EXPECT_EQ(script.next, 3u);
  EXPECT_DOUBLE_EQ(script.now, 1.0);
  EXPECT_EQ(follow_summary(watched.result).dump(),
            R"({"jobs":[{"name":"a","kind":"distill","state":"succeeded","attempts":1,"digest":"d"},)"
            R"({"name":"b","kind":"distill","state":"succeeded","attempts":1,"digest":"d"}]})");
}

TEST(Follow, AutomaticEvaluationsAreNeitherAwaitedNorListed) {
  Script script{{answer({job("a", "succeeded"), job("a-eval-5", "running", "a-1")})}};
  const Watched watched = watch(script);
  EXPECT_TRUE(watched.result.succeeded);
  EXPECT_EQ(watched.result.jobs.size(), 1u);
}

TEST(Follow, AFailureEndsItWithWhatItBlocks) {
  Script script{{answer({job("a", "failed"), job("b", "blocked"), job("c", "succeeded")})}};
  const Watched watched = watch(script);
  EXPECT_FALSE(watched.result.succeeded);
  EXPECT_THAT(failure_lines(watched.result), ElementsAre("a: failed: why", "b: blocked: why"));
}

TEST(Follow, WaitsForACoordinatorThatComesBack) {
  Script script{{answer({job("a", "running")}), json(), json(), json(), answer({job("a", "succeeded")})}};
  const Watched watched = watch(script);
  EXPECT_TRUE(watched.result.succeeded);
  EXPECT_THAT(watched.text, HasSubstr("does not answer"));
  EXPECT_THAT(watched.text, HasSubstr("is back"));
}

TEST(Follow, GivesUpOnACoordinatorThatStaysAwayForAMinute) {
  Script script{{answer({job("a", "running")}), json()}};
  const auto error = error_of([&] { watch(script); });
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code, ErrorCode::kUnavailable);
  EXPECT_GT(script.now, 60.0);
  EXPECT_LT(script.now, 62.0);
}

TEST(Follow, ComingBackStartsTheMinuteAnew) {
  std::vector<json> answers(100, json());
  answers.push_back(answer({job("a", "running")}));
  answers.insert(answers.end(), 100, json());
  answers.push_back(answer({job("a", "succeeded")}));
  Script script{answers};
  EXPECT_TRUE(watch(script).result.succeeded);
}

TEST(Follow, JobsThatWaitForNothingThatMovesAreAnError) {
  Script script{{answer({job("a", "interrupted"), job("b", "waiting")})}};
  const auto error = error_of([&] { watch(script); });
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code, ErrorCode::kJobFailed);
}

TEST(Follow, OtherErrorsEndItAtOnce) {
  Script script{{json::object()}};
  FollowHooks hooks = script.hooks();
  hooks.fetch = []() -> json { throw Error(ErrorCode::kNotFound, "no such pipeline"); };
  std::ostringstream out;
  ProgressView view(out, false, 80);
  const auto error = error_of([&] { follow_pipeline(hooks, view, {}); });
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace onestep
