// The routes of what is live: events, samples, workers, the page.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "common/run_folder.h"
#include "coordinator/api.h"
#include "support/files.h"
#include "support/temp_folder.h"

namespace onestep {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::SizeIs;

struct OneMachine {
  std::optional<ProcessEnd> end;
};
class OneProcess : public Launcher {
 public:
  explicit OneProcess(OneMachine& machine) : machine_(machine) {}
  ProcessIdentity launch(const LaunchRequest&) override { return {1, 1}; }
  std::optional<ProcessEnd> poll(const ProcessIdentity&) override { return machine_.end; }
  std::optional<ProcessIdentity> find(const LaunchRequest&) override { return std::nullopt; }
  void terminate(const ProcessIdentity&) override {}
  int kill_all(const LaunchRequest&) override { return 0; }

 private:
  OneMachine& machine_;
};

class LiveApi : public testing::Test {
 protected:
  LiveApi() {
    const json spec = {{"name", "judge"},    {"kind", "evaluate"},        {"dataset", {{"path", "d.h5"}}},
                       {"detector", "/det"}, {"source", "real_split_half"}};
    const HttpResponse answer =
        ask("POST", "/api/v1/jobs", {{"content-type", "application/json"}}, json{{"spec", spec}, {"base", "/"}}.dump());
    EXPECT_EQ(answer.status, 201) << answer.body;
    coordinator_.tick();
    EXPECT_FALSE(coordinator_
                     .hello({.job = "judge-1", .attempt = 1, .rank = 0, .ranks = 1, .pid = 7, .host = "here", .commit = ""})
                     .refusal);
  }
  HttpResponse ask(const std::string& method, const std::string& target,
                   std::map<std::string, std::string> headers = {}, const std::string& body = "") {
    headers["host"] = "127.0.0.1:8080";
    return api_.handle({.method = method, .target = target, .headers = std::move(headers), .body = body});
  }
  static std::string all_of(const HttpResponse& response) {
    std::string text;
    while (response.stream) {
      const std::optional<std::string> piece = response.stream->next();
      if (!piece || piece->empty()) break;
      text += *piece;
    }
    return text;
  }
  void finish() {
    const std::string run = coordinator_.run_folder("judge-1");
    spit(run + "/panel.png", "picture");
    JobOutcome outcome;
    outcome.name = "judge";
    outcome.kind = "evaluate";
    outcome.state = "succeeded";
    outcome.result = {{"frechet", 1.5}, {"images", 640}};
    spit(attempt_outcome_file(run, 1), to_json(outcome).dump());
    machine_.end = ProcessEnd{true, "exit status 0"};
    now_ += 1;
    coordinator_.tick();
    EXPECT_EQ(coordinator_.job("judge-1").state, JobState::kSucceeded) << coordinator_.job("judge-1").reason;
  }

  TempFolder data_;
  OneMachine machine_;
  double now_ = 1'700'000'000;
  Coordinator coordinator_{{.data = data_.path(), .slots = 2, .clock = [this] { return now_; }},
                           std::make_unique<OneProcess>(machine_)};
  Api api_{coordinator_};
};

TEST_F(LiveApi, EventsOfAJobByIdAndByName) {
  for (const char* target : {"/api/v1/jobs/judge/events", "/api/v1/jobs/judge-1/events", "/api/v1/events"}) {
    const HttpResponse response = ask("GET", target);
    EXPECT_EQ(response.status, 200);
    EXPECT_EQ(response.content_type, "text/event-stream");
    EXPECT_THAT(all_of(response), HasSubstr("event: state\ndata: {\"job\":\"judge-1\",\"time\":"));
  }
  const std::string pipeline = coordinator_.job("judge-1").pipeline;
  EXPECT_THAT(all_of(ask("GET", "/api/v1/pipelines/" + pipeline + "/events")), HasSubstr("\"running\""));
  EXPECT_EQ(ask("GET", "/api/v1/jobs/none/events").status, 404);
  EXPECT_EQ(ask("GET", "/api/v1/pipelines/none/events").status, 404);
}

TEST_F(LiveApi, AHeadOfEventsOpensNoStream) {
  const HttpResponse response = ask("HEAD", "/api/v1/events");
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.stream, nullptr);
}

TEST_F(LiveApi, WrongQueriesAndIdsOfEventsAreRefused) {
  EXPECT_THAT(ask("GET", "/api/v1/events?types=state,nothing").body, HasSubstr("found \\\"nothing\\\""));
  EXPECT_EQ(ask("GET", "/api/v1/events?types=nothing").status, 400);
  EXPECT_EQ(ask("GET", "/api/v1/events?type=state").status, 400);
  EXPECT_EQ(ask("GET", "/api/v1/events", {{"last-event-id", "x"}}).status, 400);
  EXPECT_EQ(ask("GET", "/api/v1/events", {{"last-event-id", "1000000"}}).status, 409);
}

TEST_F(LiveApi, TheAnswersIdIsWhereItsNewsBegin) {
  const json job = json::parse(ask("GET", "/api/v1/jobs/judge").body);
  const HttpResponse response =
      ask("GET", "/api/v1/jobs/judge/events?types=state", {{"last-event-id", job.at("last_event_id")}});
  EXPECT_EQ(all_of(response), "retry: 1000\n\n") << "nothing is newer";
  coordinator_.cancel("judge");
  api_.publish_events();
  EXPECT_THAT(all_of(response), HasSubstr("\"stopping\""));
  const json list = json::parse(ask("GET", "/api/v1/jobs").body);
  EXPECT_TRUE(list.at("last_event_id").is_string());
}

TEST_F(LiveApi, SamplesAreListedAndSentOnce) {
  EXPECT_THAT(json::parse(ask("GET", "/api/v1/jobs/judge/samples").body).at("items"), SizeIs(0));
  finish();
  const json items = json::parse(ask("GET", "/api/v1/jobs/judge/samples").body).at("items");
  ASSERT_THAT(items, SizeIs(1));
  EXPECT_EQ(items[0].at("images"), 640);
  EXPECT_EQ(items[0].at("frechet"), 1.5);
  const std::string url = items[0].at("url");
  const HttpResponse picture = ask("GET", url);
  EXPECT_EQ(picture.status, 200);
  EXPECT_EQ(picture.content_type, "image/png");
  EXPECT_EQ(picture.file->file.read_at(0, picture.file->length), "picture");
  const HttpResponse again = ask("GET", url, {{"if-none-match", picture.headers.at("ETag")}});
  EXPECT_EQ(again.status, 304);
  EXPECT_EQ(again.body, "");
  EXPECT_EQ(ask("GET", "/api/v1/jobs/judge/samples/7.png").status, 404);
  EXPECT_EQ(ask("GET", "/api/v1/jobs/judge/samples/..%2Fjob.json").status, 404);
}

TEST_F(LiveApi, APictureThatIsTooLargeIsRefused) {
  finish();
  const std::string file = coordinator_.run_folder("judge-1") + "/panel.png";
  const std::string url = json::parse(ask("GET", "/api/v1/jobs/judge/samples").body).at("items")[0].at("url");
  std::filesystem::resize_file(file, 64 << 20);
  EXPECT_EQ(ask("GET", url).status, 200);
  std::filesystem::resize_file(file, (64 << 20) + 1);
  const HttpResponse refused = ask("GET", url);
  EXPECT_EQ(refused.status, 409);
  EXPECT_THAT(refused.body, HasSubstr("expected at most 67108864 bytes, found 67108865"));
}

TEST_F(LiveApi, WorkersAreListedWhileTheyRun) {
  now_ += 7;
  const json items = json::parse(ask("GET", "/api/v1/jobs/judge/workers").body).at("items");
  ASSERT_THAT(items, SizeIs(1));
  EXPECT_EQ(items[0].at("host"), "here");
  EXPECT_EQ(items[0].at("trouble"), "silent for 7.0 s");
  finish();
  EXPECT_THAT(json::parse(ask("GET", "/api/v1/jobs/judge/workers").body).at("items"), SizeIs(0));
}

TEST_F(LiveApi, ThePageHasItsPolicyAndATag) {
  const HttpResponse page = ask("GET", "/");
  EXPECT_EQ(page.status, 200);
  EXPECT_THAT(page.headers.at("Content-Security-Policy"), HasSubstr("default-src 'none'"));
  EXPECT_EQ(ask("GET", "/", {{"if-none-match", page.headers.at("ETag")}}).status, 304);
  EXPECT_EQ(ask("GET", "/main.js").content_type, "text/javascript; charset=utf-8");
  EXPECT_EQ(ask("GET", "/index2.html").status, 404);
}

}  // namespace
}  // namespace onestep
