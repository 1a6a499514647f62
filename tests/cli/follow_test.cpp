#include "cli/follow.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "cli/progress_view.h"
#include "cli/server_events.h"
#include "support/files.h"

namespace onestep {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

json job(const std::string& name, const std::string& state, const std::string& parent = "") {
  return {{"id", name + "-1"}, {"name", name},  {"kind", "distill"}, {"state", state},
          {"attempts", 1},     {"digest", "d"}, {"reason", "why"},   {"parent", parent}};
}

// Plays a list of moments: the first is the snapshot, each later one a state event of each of its jobs. An empty one means
// that nobody is there. After the last there are heartbeats, or nobody, for ever. Time is what was slept.
struct Script {
  std::vector<json> moments;
  std::size_t next = 0;
  double now = 0.0;
  std::vector<std::string> asked_after = {};  // each stream's Last-Event-ID

  FollowHooks hooks() {
    return {.fetch =
                [this] {
                  json answer = take();
                  answer["last_event_id"] = "0";
                  return answer;
                },
            .stream =
                [this](const std::string& after, const std::function<bool(const ServerEvent&)>& on_event) {
                  asked_after.push_back(after);
                  int number = after.empty() ? 0 : std::stoi(after);
                  while (true) {
                    if (next == moments.size() && !moments.back().is_null()) {
                      now += 15.0;
                      if (!on_event({after, "", ""})) return;
                      continue;
                    }
                    const json moment = take();
                    for (json job : moment.at("jobs")) {
                      job["job"] = job["id"];
                      if (!on_event({std::to_string(++number), "state", job.dump()})) return;
                    }
                  }
                },
            .now_s = [this] { return now; },
            .sleep_s = [this](double seconds) { now += seconds; }};
  }
  json take() {
    const json moment = next < moments.size() ? moments[next++] : moments.back();
    if (moment.is_null()) throw Error(ErrorCode::kUnavailable, "nobody there");
    return moment;
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

TEST(Follow, SaysHowLongAllTook) {
  FollowResult result;
  result.jobs = {{{"name", "a"}, {"started", 110.0}, {"ended", 130.0}}, {{"name", "b"}, {"started", 100.0}, {"ended", 165.4}}};
  EXPECT_EQ(success_line(result, "p-1"), "p-1: 2 jobs succeeded in 1:05");
  result.jobs = {{{"name", "a"}, {"started", nullptr}}};
  EXPECT_EQ(success_line(result, "p-1"), "p-1: 1 job succeeded");
}

TEST(Follow, WaitsForACoordinatorThatComesBack) {
  Script script{{answer({job("a", "running")}), json(), json(), json(), answer({job("a", "succeeded")})}};
  const Watched watched = watch(script);
  EXPECT_TRUE(watched.result.succeeded);
  EXPECT_THAT(watched.text, HasSubstr("does not answer"));
  EXPECT_THAT(watched.text, HasSubstr("is back"));
}

TEST(Follow, GoesOnAfterTheLastEventItHeard) {
  Script script{{answer({job("a", "queued")}), answer({job("a", "starting")}), answer({job("a", "running")}), json(),
                 answer({job("a", "succeeded")})}};
  EXPECT_TRUE(watch(script).result.succeeded);
  EXPECT_THAT(script.asked_after, ElementsAre("0", "2"));
}

TEST(Follow, ShowsProgressThatComesWithoutAnId) {
  Script script{{answer({job("a", "running")})}};
  FollowHooks hooks = script.hooks();
  hooks.stream = [](const std::string&, const std::function<bool(const ServerEvent&)>& on_event) {
    on_event({"0", "progress", R"({"job":"a-1","stage":"dmd","images":5,"images_total":10})"});
    on_event({"1", "state", R"({"job":"a-1","id":"a-1","name":"a","state":"succeeded"})"});
  };
  std::ostringstream out;
  ProgressView view(out, false, 80);
  EXPECT_TRUE(follow_pipeline(hooks, view, {}).succeeded);
  EXPECT_THAT(out.str(), HasSubstr("running, dmd"));
}

TEST(Follow, AlarmsArePrintedAndChangeNoJob) {
  std::ostringstream out;
  ProgressView view(out, false, 80);
  Script script{{answer({job("a", "running")})}};
  FollowHooks hooks = script.hooks();
  hooks.stream = [](const std::string&, const std::function<bool(const ServerEvent&)>& on_event) {
    const json alarm = {{"job", "a-1"}, {"code", "fake_loss"}, {"reason", "4 is 10 times"}, {"action", "stop"}, {"ended", nullptr}};
    on_event({"3", "alarm", alarm.dump()});
    json ended = alarm;
    ended["ended"] = 5.0;
    on_event({"4", "alarm", ended.dump()});
    json state = job("a", "succeeded");
    state["job"] = "a-1";
    on_event({"5", "state", state.dump()});
  };
  EXPECT_TRUE(follow_pipeline(hooks, view, {}).succeeded);
  EXPECT_THAT(out.str(), HasSubstr("a-1: alarm fake_loss: 4 is 10 times; the job is stopped\n"));
  EXPECT_THAT(out.str(), HasSubstr("a-1: alarm fake_loss (over): 4 is 10 times"));
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
