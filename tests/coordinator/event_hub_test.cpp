// Readers of events beside a coordinator that works, is killed, and comes back.
#include "coordinator/event_hub.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "common/config.h"
#include "common/durable_file.h"
#include "common/pipeline.h"
#include "common/run_folder.h"
#include "support/files.h"
#include "support/temp_folder.h"

namespace onestep {
namespace {

using nlohmann::json;
using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

// Processes that run until the test ends them; they outlive a coordinator.
struct Machine {
  std::map<std::int64_t, std::optional<ProcessEnd>> ends;
};
class FakeLauncher : public Launcher {
 public:
  explicit FakeLauncher(Machine& machine) : machine_(machine) {}
  ProcessIdentity launch(const LaunchRequest&) override {
    const auto pid = static_cast<std::int64_t>(machine_.ends.size()) + 1;
    machine_.ends[pid] = std::nullopt;
    return {pid, 1};
  }
  std::optional<ProcessEnd> poll(const ProcessIdentity& process) override {
    return machine_.ends.at(process.pid);
  }
  std::optional<ProcessIdentity> find(const LaunchRequest&) override { return std::nullopt; }
  void terminate(const ProcessIdentity&) override {}
  int kill_all(const LaunchRequest&) override { return 0; }

 private:
  Machine& machine_;
};

struct Heard {
  std::string id;
  std::string type;
  json data;
};

// What a stream says until it is quiet.
class Listener {
 public:
  explicit Listener(std::shared_ptr<BodyStream> stream) : stream_(std::move(stream)) {}
  // nullopt from the stream ends it for good.
  void listen() {
    while (const std::optional<std::string> text = stream_->next()) {
      if (text->empty()) return;
      take(*text);
    }
    ended = true;
  }
  std::vector<Heard> of_type(const std::string& type) const {
    std::vector<Heard> found;
    for (const Heard& one : heard) {
      if (one.type == type) found.push_back(one);
    }
    return found;
  }
  std::string log() const {
    std::string text;
    for (const Heard& one : of_type("log")) text += one.data.at("text").get<std::string>();
    return text;
  }
  std::string last_id() const { return last_id_; }

  std::vector<Heard> heard;
  bool ended = false;

 private:
  void take(const std::string& text) {
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t end = text.find("\n\n", at);
      Heard one;
      std::string lines = text.substr(at, end + 1 - at);
      for (std::size_t line = 0; line < lines.size();) {
        const std::size_t stop = lines.find('\n', line);
        const std::string content = lines.substr(line, stop - line);
        if (content.starts_with("id: ")) one.id = content.substr(4);
        if (content.starts_with("event: ")) one.type = content.substr(7);
        if (content.starts_with("data: ")) one.data = json::parse(content.substr(6));
        line = stop + 1;
      }
      if (!one.id.empty()) last_id_ = one.id;
      if (!one.type.empty()) heard.push_back(std::move(one));
      at = end + 2;
    }
  }

  std::shared_ptr<BodyStream> stream_;
  std::string last_id_;
};

class EventHubTest : public testing::Test {
 protected:
  EventHubTest() {
    restart();
    const json spec = {{"name", "a"}, {"kind", "train_teacher"}, {"dataset", {{"path", "d.h5"}}}};
    const json other = {{"name", "b"}, {"kind", "train_teacher"}, {"dataset", {{"path", "d.h5"}}}};
    coordinator_->submit(parse_pipeline({{"pipeline", "p"}, {"jobs", {spec}}}, "/", "test"));
    coordinator_->submit(parse_pipeline({{"pipeline", "q"}, {"jobs", {other}}}, "/", "test"));
  }

  // As after kill -9: whatever was only in memory is gone.
  void restart() {
    hub_.reset();
    coordinator_.reset();
    coordinator_ = std::make_unique<Coordinator>(
        CoordinatorOptions{.data = folder_ / "data", .slots = 4, .clock = [this] { return now_; }},
        std::make_unique<FakeLauncher>(machine_));
    hub_ = std::make_unique<EventHub>(*coordinator_, limits_);
  }
  void tick(double seconds = 0.2) {
    now_ += seconds;
    coordinator_->tick();
    hub_->publish();
  }
  void run(const std::string& id) {
    tick();
    for (const char* name : {"a-1", "b-2"}) {
      if (id != name) continue;
      coordinator_->hello({.job = id,
                           .attempt = coordinator_->job(id).attempts,
                           .rank = 0,
                           .ranks = 1,
                           .pid = 7,
                           .host = "h",
                           .commit = ""});
    }
  }
  void report(const std::string& id, int iteration, double loss) {
    const int attempt = coordinator_->job(id).attempts;
    const json body = {{"stage", "teacher"},     {"iteration", iteration},
                       {"images", iteration * 8}, {"images_per_second", 5.0},
                       {"metrics", {{"loss", loss}}}};
    EXPECT_FALSE(coordinator_->on_messages({{{id, attempt, 0}, {MessageType::kProgress, 0, body}}}).front().refusal);
  }
  void log(const std::string& id, const std::string& text, int attempt = 1) {
    const std::string path = log_file(coordinator_->run_folder(id), attempt, 0);
    std::filesystem::create_directories(std::filesystem::path(path).parent_path());
    std::ofstream(path, std::ios::app) << text;
  }
  Listener listener(const EventScope& scope, const std::string& after = "0",
                    const std::set<std::string>& types = {}) {
    return Listener(hub_->subscribe(scope, event_cursor_from_string(after).value(), types));
  }

  TempFolder folder_;
  Machine machine_;
  double now_ = 1'700'000'000;
  EventLimits limits_;
  std::unique_ptr<Coordinator> coordinator_;
  std::unique_ptr<EventHub> hub_;
};

std::vector<std::string> states(const Listener& listener) {
  std::vector<std::string> found;
  for (const Heard& one : listener.of_type("state")) {
    const std::string state = one.data.at("state");
    if (found.empty() || found.back() != state) found.push_back(state);
  }
  return found;
}
std::vector<int> iterations(const Listener& listener) {
  std::vector<int> found;
  for (const Heard& one : listener.of_type("metric")) found.push_back(one.data.at("iteration"));
  return found;
}
std::vector<std::string> ids(const Listener& listener) {
  std::vector<std::string> found;
  for (const Heard& one : listener.heard) {
    if (!one.id.empty()) found.push_back(one.id);
  }
  return found;
}

TEST_F(EventHubTest, TellsAJobsLifeInOrder) {
  Listener live = listener({.job = "a-1", .pipeline = ""});
  live.listen();
  run("a-1");
  report("a-1", 10, 0.5);
  report("a-1", 20, 0.4);
  tick(1.5);
  coordinator_->cancel("a-1");
  tick();
  live.listen();
  EXPECT_THAT(states(live), ElementsAre("waiting", "queued", "starting", "running", "stopping"));
  EXPECT_THAT(iterations(live), ElementsAre(10, 20));
  const Heard metric = live.of_type("metric").at(0);
  EXPECT_EQ(metric.data.at("job"), "a-1");
  EXPECT_EQ(metric.data.at("values"), json({{"loss", 0.5}, {"images_per_second", 5.0}}));
  EXPECT_EQ(live.of_type("state").back().data.at("name"), "a") << "the whole summary";
  const std::vector<Heard> progress = live.of_type("progress");
  ASSERT_THAT(progress, SizeIs(1)) << "the newest alone";
  EXPECT_EQ(progress[0].data.at("iteration"), 20);
  EXPECT_EQ(progress[0].id, "") << "so that it is not gone on from";
}

TEST_F(EventHubTest, AReplayIsWhatWasHeardLive) {
  Listener live = listener({.job = "a-1", .pipeline = ""}, "0", {"state", "metric", "checkpoint"});
  live.listen();
  run("a-1");
  for (int i = 1; i <= 700; ++i) {
    report("a-1", i, 1.0 / i);
    if (i % 50 == 0) tick(1.1);
    if (i % 70 == 0) live.listen();
  }
  tick(1.5);
  live.listen();
  Listener replay = listener({.job = "a-1", .pipeline = ""}, "0", {"state", "metric", "checkpoint"});
  replay.listen();
  ASSERT_EQ(ids(live), ids(replay));
  for (std::size_t i = 0; i < live.heard.size(); ++i) {
    EXPECT_EQ(live.heard[i].data, replay.heard[i].data);
  }
  EXPECT_THAT(iterations(replay), SizeIs(700));
}

// An answer knows of events that the other readers have not been told yet: whoever goes on from it hears them no second time.
TEST_F(EventHubTest, AReaderBesideOthersBeginsExactlyWhereItsAnswerEnded) {
  const EventScope job{.job = "a-1", .pipeline = ""};
  Listener other = listener(job);
  other.listen();
  tick();
  other.listen();
  coordinator_->cancel("a-1");
  coordinator_->cancel("b-2");
  const std::int64_t seen = coordinator_->last_event();
  Listener late = listener(job, std::to_string(seen));
  late.listen();
  tick();
  for (auto& [pid, end] : machine_.ends) end = ProcessEnd{true, "mpirun ended"};
  tick();
  late.listen();
  other.listen();
  EXPECT_THAT(states(other), ElementsAre("waiting", "queued", "starting", "stopping", "cancelled"));
  EXPECT_THAT(states(late), ElementsAre("cancelled"));
  EXPECT_GT(event_cursor_from_string(ids(late).front()).value().number, seen);
}

// From every place in the stream, across a coordinator that was killed there: nothing is lost,
// nothing comes twice.
TEST_F(EventHubTest, GoesOnFromAnyEventAfterAKill) {
  run("a-1");
  for (int i = 1; i <= 20; ++i) report("a-1", i, 1.0 / i);
  log("a-1", "first line\nsecond line\nthird");
  tick(1.5);
  Listener before = listener({.job = "a-1", .pipeline = ""});
  before.listen();
  EXPECT_EQ(before.log(), "first line\nsecond line\n") << "a line that is being written waits";
  const std::vector<std::string> places = ids(before);
  restart();
  log("a-1", " line\nfourth line\n");
  for (int i = 21; i <= 40; ++i) report("a-1", i, 1.0 / i);
  tick(1.5);
  for (std::size_t at = 0; at < places.size(); ++at) {
    Listener after = listener({.job = "a-1", .pipeline = ""}, places[at]);
    after.listen();
    std::vector<int> all;
    std::string text;
    for (std::size_t i = 0; i <= at; ++i) {
      const Heard& one = before.heard.at(i);
      if (one.type == "metric") all.push_back(one.data.at("iteration"));
      if (one.type == "log") text += one.data.at("text").get<std::string>();
    }
    for (const int iteration : iterations(after)) all.push_back(iteration);
    ASSERT_THAT(all, SizeIs(40)) << "from " << places[at];
    for (int i = 0; i < 40; ++i) EXPECT_EQ(all[static_cast<std::size_t>(i)], i + 1);
    EXPECT_EQ(text + after.log(), "first line\nsecond line\nthird line\nfourth line\n");
  }
}

TEST_F(EventHubTest, WhatWasOnlyInMemoryWasToldToNobody) {
  run("a-1");
  Listener live = listener({.job = "a-1", .pipeline = ""}, "0", {"metric"});
  coordinator_->tick();
  report("a-1", 1, 0.5);
  hub_->publish();  // before it is in the database
  live.listen();
  EXPECT_THAT(live.heard, IsEmpty());
}

TEST_F(EventHubTest, TheLogOfEachAttemptComesWholeAndBeforeItsEnd) {
  run("a-1");
  Listener live = listener({.job = "a-1", .pipeline = ""}, "0", {"state", "log"});
  log("a-1", "one\n");
  tick();
  live.listen();
  log("a-1", "two\nno newline at the end");
  machine_.ends.at(1) = ProcessEnd{false, "killed"};
  tick();
  live.listen();
  EXPECT_EQ(live.log(), "one\ntwo\nno newline at the end");
  EXPECT_EQ(live.heard.back().type, "state") << "told after the log's end";
  tick(1.0);  // the next attempt
  log("a-1", "second attempt\n", 2);
  tick();
  live.listen();
  EXPECT_EQ(live.log(), "one\ntwo\nno newline at the endsecond attempt\n");
  EXPECT_EQ(live.of_type("log").back().data.at("attempt"), 2);
  EXPECT_EQ(live.of_type("log").back().data.at("offset"), 0);

  Listener late = listener({.job = "a-1", .pipeline = ""}, "0", {"log"});
  late.listen();
  EXPECT_EQ(late.log(), live.log());
}

TEST_F(EventHubTest, ALongLogComesInPieces) {
  limits_.log_bytes = 100;
  restart();
  std::string text;
  for (int i = 0; i < 200; ++i) text += "line " + std::to_string(i) + "\n";
  text += std::string(350, 'x') + "\n";  // longer than a piece
  run("a-1");
  log("a-1", text);
  tick();
  Listener replay = listener({.job = "a-1", .pipeline = ""}, "0", {"log"});
  replay.listen();
  EXPECT_EQ(replay.log(), text);
  std::int64_t end = 0;
  for (const Heard& one : replay.heard) {
    EXPECT_EQ(one.data.at("offset"), end);
    end += static_cast<std::int64_t>(one.data.at("text").get<std::string>().size());
    Listener rest = listener({.job = "a-1", .pipeline = ""}, one.id, {"log"});
    rest.listen();
    EXPECT_EQ(rest.log(), text.substr(static_cast<std::size_t>(end)));
  }
}

TEST_F(EventHubTest, ScopesAndTypesAreApart) {
  Listener a = listener({.job = "", .pipeline = coordinator_->job("a-1").pipeline}, "0", {"metric"});
  Listener all = listener({}, "0", {"metric"});
  run("a-1");
  run("b-2");
  report("a-1", 1, 0.5);
  report("b-2", 2, 0.5);
  tick(1.5);
  a.listen();
  all.listen();
  EXPECT_THAT(iterations(a), ElementsAre(1));
  EXPECT_THAT(iterations(all), testing::UnorderedElementsAre(1, 2));
  EXPECT_THAT(a.of_type("state"), IsEmpty());
}

// A reader that takes nothing costs at most its queue, and is told to come again; others miss nothing.
TEST_F(EventHubTest, ASlowReaderIsDroppedAndGoesOnLater) {
  limits_.queued_bytes = 4000;
  restart();
  run("a-1");
  Listener slow = listener({.job = "a-1", .pipeline = ""}, "0", {"metric"});
  Listener quick = listener({.job = "a-1", .pipeline = ""}, "0", {"metric"});
  slow.listen();
  quick.listen();
  for (int i = 1; i <= 100; ++i) {
    report("a-1", i, 0.5);
    tick(1.1);
    if (i <= 5) slow.listen();
    quick.listen();
  }
  slow.listen();
  EXPECT_TRUE(slow.ended);
  EXPECT_FALSE(quick.ended);
  EXPECT_THAT(iterations(quick), SizeIs(100));
  Listener again = listener({.job = "a-1", .pipeline = ""}, slow.last_id(), {"metric"});
  again.listen();
  EXPECT_EQ(iterations(slow).size() + iterations(again).size(), 100U);
  EXPECT_EQ(iterations(again).front(), iterations(slow).back() + 1);
}

TEST_F(EventHubTest, AReaderInItsReplayNeedsNoQueue) {
  limits_.queued_bytes = 4000;
  limits_.batch = 7;
  restart();
  run("a-1");
  for (int i = 1; i <= 50; ++i) report("a-1", i, 0.5);
  tick(1.5);
  auto stream = hub_->subscribe({.job = "a-1", .pipeline = ""}, {}, {"metric"});
  stream->next();  // the greeting
  stream->next();  // the first batch
  for (int i = 51; i <= 200; ++i) {
    report("a-1", i, 0.5);
    tick(1.1);
  }
  Listener rest(stream);
  rest.listen();
  EXPECT_FALSE(rest.ended);
  EXPECT_THAT(iterations(rest), SizeIs(200 - 7));
}

TEST_F(EventHubTest, ReadersAreLimitedAndForgotten) {
  limits_.readers = 2;
  restart();
  auto first = hub_->subscribe({}, {}, {});
  auto second = hub_->subscribe({.job = "a-1", .pipeline = ""}, {}, {});
  const auto error = error_of([&] { hub_->subscribe({}, {}, {}); });
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code, ErrorCode::kUnavailable);
  first.reset();
  EXPECT_EQ(hub_->num_readers(), 1);
  hub_->subscribe({}, {}, {});
  hub_.reset();
  second.reset();  // a connection may outlive the hub
}

TEST_F(EventHubTest, AnIdOfAnotherDataFolderIsRefused) {
  const auto error = error_of([&] { listener({}, "100000"); });
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code, ErrorCode::kConflict);
  EXPECT_THAT(error->message, HasSubstr("found 100000"));
}

TEST_F(EventHubTest, AReaderIsWokenByWhatIsNew) {
  auto stream = hub_->subscribe({.job = "a-1", .pipeline = ""}, {}, {"state"});
  int wakes = 0;
  stream->on_ready([&] { ++wakes; });
  while (!stream->next()->empty()) {
  }
  tick();
  EXPECT_GE(wakes, 1);
  EXPECT_THAT(stream->next().value(), HasSubstr("\"starting\""));
}

}  // namespace
}  // namespace onestep
