#include "coordinator/api.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <limits>

#include "common/run_folder.h"
#include "support/files.h"
#include "support/temp_folder.h"

namespace onestep {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsSupersetOf;
using testing::UnorderedElementsAre;

// Processes that run for ever.
class EndlessLauncher : public Launcher {
 public:
  ProcessIdentity launch(const LaunchRequest&) override { return {++last_pid_, 1}; }
  std::optional<ProcessEnd> poll(const ProcessIdentity&) override { return std::nullopt; }
  std::optional<ProcessIdentity> find(const LaunchRequest&) override { return std::nullopt; }
  void terminate(const ProcessIdentity&) override {}
  int kill_all(const LaunchRequest&) override { return 0; }

 private:
  std::int64_t last_pid_ = 1'000'000;
};

json detector_spec(const std::string& name) {
  return {{"name", name}, {"kind", "train_detector"}, {"dataset", {{"path", "digits.h5"}}}};
}

class ApiTest : public testing::Test {
 protected:
  HttpResponse request(const std::string& method, const std::string& target,
                       const std::string& body = "",
                       std::map<std::string, std::string> headers = {
                           {"host", "127.0.0.1:8080"}, {"content-type", "application/json"}}) {
    return api_.handle({method, target, std::move(headers), body});
  }
  HttpResponse get(const std::string& target) { return request("GET", target); }
  json get_json(const std::string& target) {
    const HttpResponse response = get(target);
    EXPECT_EQ(response.status, 200) << response.body;
    EXPECT_EQ(response.content_type, "application/json");
    return json::parse(response.body);
  }
  HttpResponse submit(const json& spec) {
    return request("POST", "/api/v1/jobs", json{{"spec", spec}, {"base", "/specs"}}.dump());
  }
  // Submits one training job and brings it to the state running. Returns its id.
  std::string run_job(const std::string& name) {
    const json answer = json::parse(submit(detector_spec(name)).body);
    coordinator_.tick();
    const std::string id = answer["jobs"][0]["id"];
    EXPECT_FALSE(coordinator_
                     .hello({.job = id,
                             .attempt = 1,
                             .rank = 0,
                             .ranks = 1,
                             .pid = 7,
                             .host = "here",
                             .commit = ""})
                     .refusal);
    return id;
  }
  void report(const std::string& id, MessageType type, std::uint64_t sequence, json body) {
    const MessageAnswer answer =
        coordinator_.on_messages({{{id, 1, 0}, {type, sequence, std::move(body)}}}).front();
    EXPECT_FALSE(answer.refusal) << answer.refusal->reason;
  }

  static void expect_problem(const HttpResponse& response, int status, const std::string& detail) {
    EXPECT_EQ(response.status, status) << response.body;
    EXPECT_EQ(response.content_type, "application/problem+json");
    const json document = json::parse(response.body);
    EXPECT_THAT(document.value("detail", ""), HasSubstr(detail));
    EXPECT_EQ(document.value("status", 0), status);
    for (const char* key : {"type", "title", "instance"})
      EXPECT_TRUE(document[key].is_string()) << key;
  }

  static std::vector<std::string> error_pointers(const HttpResponse& response) {
    const json document = json::parse(response.body);
    std::vector<std::string> pointers;
    for (const json& error : document.at("errors")) pointers.push_back(error.at("pointer"));
    return pointers;
  }

  TempFolder data_;
  double now_ = 1'700'000'000;
  Coordinator coordinator_{{.data = data_.path(), .slots = 2, .clock = [this] { return now_; }},
                           std::make_unique<EndlessLauncher>()};
  Api api_{coordinator_};
};

TEST_F(ApiTest, SubmitsAJobAndSaysWhereItIs) {
  const HttpResponse response = submit(detector_spec("detector"));
  EXPECT_EQ(response.status, 201) << response.body;
  const json answer = json::parse(response.body);
  const std::string pipeline = answer["pipeline"]["id"];
  EXPECT_EQ(response.headers.at("Location"), "/api/v1/pipelines/" + pipeline);
  EXPECT_EQ(answer["pipeline"]["name"], "detector");
  ASSERT_EQ(answer["jobs"].size(), 1);
  EXPECT_EQ(answer["jobs"][0]["id"], "detector-1");
  EXPECT_EQ(answer["jobs"][0]["state"], "queued");
  EXPECT_EQ(get_json("/api/v1/jobs/detector-1")["spec"]["dataset"]["path"], "/specs/digits.h5");
}

TEST_F(ApiTest, SubmitsAPipelineInItsOrder) {
  const json spec = {{"pipeline", "two"},
                     {"jobs",
                      {detector_spec("detector"),
                       {{"name", "judge"},
                        {"kind", "evaluate"},
                        {"source", "real_split_half"},
                        {"dataset", {{"path", "digits.h5"}}},
                        {"detector", "@detector"}}}}};
  const HttpResponse response = submit(spec);
  ASSERT_EQ(response.status, 201) << response.body;
  const std::string id = json::parse(response.body)["pipeline"]["id"];
  const json pipeline = get_json("/api/v1/pipelines/" + id);
  EXPECT_EQ(pipeline["name"], "two");
  EXPECT_EQ(pipeline["id"], id);
  ASSERT_EQ(pipeline["jobs"].size(), 2);
  EXPECT_EQ(pipeline["jobs"][0]["name"], "detector");
  EXPECT_EQ(pipeline["jobs"][1]["name"], "judge");
  EXPECT_EQ(pipeline["jobs"][1]["state"], "waiting");
  EXPECT_EQ(get_json("/api/v1/jobs/judge-2")["after"], json({"detector-1"}));
}

TEST_F(ApiTest, RefusesWhatIsNoJson) {
  expect_problem(request("POST", "/api/v1/jobs", "{\"spec\": "), 400, "request body");
  expect_problem(request("POST", "/api/v1/jobs", ""), 400, "request body");
  expect_problem(request("POST", "/api/v1/jobs", std::string(100'000, '[')), 400, "request body");
  EXPECT_TRUE(get_json("/api/v1/jobs")["items"].empty());
}

TEST_F(ApiTest, RefusesAnotherContentType) {
  const std::string body = json{{"spec", detector_spec("detector")}, {"base", "/specs"}}.dump();
  expect_problem(request("POST", "/api/v1/jobs", body, {{"content-type", "text/plain"}}), 415,
                 "text/plain");
  expect_problem(request("POST", "/api/v1/jobs", body, {}), 415, "application/json");
  EXPECT_EQ(
      request("POST", "/api/v1/jobs", body, {{"content-type", "Application/JSON; charset=utf-8"}})
          .status,
      201);
}

TEST_F(ApiTest, ListsEveryViolationOfASpec) {
  const json spec = {{"name", "detector"},
                     {"kind", "train_detector"},
                     {"dataset", {{"path", "digits.h5"}}},
                     {"iterations", -3},
                     {"bacth", 128}};
  const HttpResponse response = submit(spec);
  expect_problem(response, 422, "2 problems");
  EXPECT_THAT(error_pointers(response), UnorderedElementsAre("/spec/iterations", "/spec/bacth"));
  EXPECT_TRUE(get_json("/api/v1/jobs")["items"].empty());
  EXPECT_FALSE(std::filesystem::exists(coordinator_.run_folder("detector-1")));
}

TEST_F(ApiTest, ListsEveryViolationAroundTheSpec) {
  const auto pointers = [this](const json& body) {
    const HttpResponse response = request("POST", "/api/v1/jobs", body.dump());
    EXPECT_EQ(response.status, 422) << response.body;
    return error_pointers(response);
  };
  EXPECT_THAT(pointers({{"base", 1}, {"more", 2}}),
              UnorderedElementsAre("/base", "/spec", "/more"));
  EXPECT_THAT(pointers({{"spec", detector_spec("a")}, {"base", "relative"}}), ElementsAre("/base"));
  EXPECT_THAT(pointers({{"spec", 7}, {"base", "/specs"}}), testing::Contains("/spec"));
  EXPECT_THAT(pointers(json::array()), testing::Not(testing::IsEmpty()));
}

TEST_F(ApiTest, ListsJobsPageByPage) {
  for (int i = 0; i < 5; ++i) submit(detector_spec("job" + std::to_string(i)));
  std::vector<std::string> names;
  std::string token = "0";
  int num_pages = 0;
  while (!token.empty()) {
    const json page = get_json("/api/v1/jobs?limit=2&page_token=" + token);
    for (const json& job : page["items"]) names.push_back(job["name"]);
    token = page["next_page_token"].is_null() ? "" : page["next_page_token"].get<std::string>();
    ++num_pages;
  }
  EXPECT_THAT(names, ElementsAre("job0", "job1", "job2", "job3", "job4"));
  EXPECT_EQ(num_pages, 3);
}

TEST_F(ApiTest, FiltersJobs) {
  submit(detector_spec("first"));
  submit(detector_spec("second"));
  request("POST", "/api/v1/jobs/first-1/cancel");
  EXPECT_EQ(get_json("/api/v1/jobs?state=cancelled")["items"].size(), 1);
  EXPECT_EQ(get_json("/api/v1/jobs?state=running")["items"].size(), 0);
  EXPECT_EQ(get_json("/api/v1/jobs?name=second")["items"][0]["id"], "second-2");
  const std::string pipeline = get_json("/api/v1/jobs/second-2")["pipeline"];
  EXPECT_EQ(get_json("/api/v1/jobs?pipeline=" + pipeline)["items"].size(), 1);
}

TEST_F(ApiTest, RefusesAWrongQueryNamingAllOfIt) {
  const HttpResponse response = get("/api/v1/jobs?state=sleeping&limit=0&color=red");
  expect_problem(response, 400, "state: expected one of waiting");
  for (const char* part :
       {"limit: expected an integer from 1 to 1000, found \\\"0\\\"", "color: unknown"}) {
    EXPECT_THAT(response.body, HasSubstr(part));
  }
  expect_problem(get("/api/v1/jobs?limit=2&limit=3"), 400, "given twice");
  expect_problem(get("/api/v1/jobs?state=%zz"), 400, "percent-encoded");
  expect_problem(get("/api/v1/jobs?page_token=abc"), 400, "page_token");
  expect_problem(get("/healthz?x=1"), 400, "x: unknown");
}

TEST_F(ApiTest, ASummaryHasTheseFields) {
  submit(detector_spec("detector"));
  const json job = get_json("/api/v1/jobs")["items"][0];
  for (const char* key : {"id", "name", "kind", "state", "reason", "attempts", "digest", "pipeline",
                          "parent", "progress", "num_alarms", "result", "ranks", "created", "started", "ended"}) {
    EXPECT_TRUE(job.contains(key)) << key;
  }
  EXPECT_EQ(job["attempts"], 0);
  EXPECT_EQ(job["digest"], "");
  EXPECT_TRUE(job["progress"].is_null());
  EXPECT_TRUE(job["started"].is_null());
}

TEST_F(ApiTest, ShowsARunningJob) {
  const std::string id = run_job("detector");
  report(id, MessageType::kProgress, 0,
         {{"stage", "training"},
          {"iteration", 10},
          {"iterations", 1000},
          {"images", 1280},
          {"images_total", 128000},
          {"images_per_second", 900.0},
          {"seconds_left", 140.0},
          {"metrics", {{"loss", 0.5}}}});
  const json job = get_json("/api/v1/jobs/" + id);
  EXPECT_EQ(job["state"], "running");
  ASSERT_EQ(job["attempts"].size(), 1);
  EXPECT_EQ(job["attempts"][0]["number"], 1);
  EXPECT_EQ(job["attempts"][0]["state"], "running");
  EXPECT_EQ(job["progress"]["iteration"], 10);
  EXPECT_EQ(job["progress"]["metrics"]["loss"], 0.5);
  EXPECT_EQ(job["run_folder"], coordinator_.run_folder(id));
  EXPECT_TRUE(job.contains("outcome"));
  EXPECT_EQ(job["alarms"], json::array());
}

TEST_F(ApiTest, AlarmsAreInTheJobItsSummaryAndTheMetrics) {
  const std::string id = run_job("detector");
  report(id, MessageType::kProgress, 0,
         {{"stage", "detector"}, {"iteration", 10}, {"images", 1280}, {"metrics", {{"loss", std::numeric_limits<double>::quiet_NaN()}}}});
  now_ += 2;
  coordinator_.tick();
  const json job = get_json("/api/v1/jobs/" + id);
  ASSERT_EQ(job["alarms"].size(), 1);
  EXPECT_EQ(job["num_alarms"], 1);
  for (const char* key : {"number", "code", "rank", "attempt", "stage", "iteration", "images", "since_iteration", "since_images",
                          "value", "bound", "reason", "hint", "action", "raised", "ended"}) {
    EXPECT_TRUE(job["alarms"][0].contains(key)) << key;
  }
  EXPECT_EQ(job["alarms"][0]["code"], "non_finite");
  EXPECT_TRUE(job["alarms"][0]["value"].is_null());
  EXPECT_TRUE(job["alarms"][0]["ended"].is_null());
  EXPECT_EQ(get_json("/api/v1/jobs")["items"][0]["num_alarms"], 1);
  const HttpResponse metrics = get("/metrics");
  EXPECT_EQ(metrics.content_type, "text/plain; version=0.0.4; charset=utf-8");
  EXPECT_THAT(metrics.body, HasSubstr("onestep_alarms{code=\"non_finite\"} 1\n"));
  EXPECT_THAT(metrics.body, HasSubstr("onestep_alarms_raised_total{code=\"non_finite\"} 1\n"));
  EXPECT_THAT(metrics.body, HasSubstr("onestep_jobs{state=\"running\"} 1\n"));
  EXPECT_THAT(metrics.body, HasSubstr("route=\"/api/v1/jobs/{id}\""));
}

TEST_F(ApiTest, RequestsAreCountedByRoutesNeverByPaths) {
  get("/nowhere/elsewhere");
  get("/api/v1/jobs/nobody");
  request("BREW", "/api/v1/jobs");
  const std::string text = get("/metrics").body;
  EXPECT_THAT(text, HasSubstr("onestep_http_requests_total{method=\"GET\",route=\"none\",status=\"404\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("{method=\"GET\",route=\"/api/v1/jobs/{id}\",status=\"404\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("method=\"other\""));
  EXPECT_THAT(text, testing::Not(HasSubstr("elsewhere")));
  EXPECT_THAT(text, testing::Not(HasSubstr("nobody")));
  EXPECT_THAT(text, testing::Not(HasSubstr("BREW")));
}

TEST_F(ApiTest, CurvesAsATensorboardFile) {
  const std::string id = run_job("detector");
  report(id, MessageType::kProgress, 0, {{"stage", "detector"}, {"iteration", 10}, {"images", 1280}, {"metrics", {{"loss", 0.5}}}});
  const HttpResponse file = get("/api/v1/jobs/detector/tensorboard");
  EXPECT_EQ(file.status, 200);
  EXPECT_EQ(file.content_type, "application/octet-stream");
  EXPECT_EQ(file.headers.at("Content-Disposition"), "attachment; filename=\"events.out.tfevents.1700000000." + id + "\"");
  EXPECT_THAT(file.body, HasSubstr("brain.Event:2"));
  EXPECT_THAT(file.body, HasSubstr("loss"));
}

TEST_F(ApiTest, ABareNameIsTheNewestJobOfThatName) {
  submit(detector_spec("detector"));
  submit(detector_spec("detector"));
  EXPECT_EQ(get_json("/api/v1/jobs/detector")["id"], "detector-2");
  EXPECT_EQ(get_json("/api/v1/jobs/detector-1")["id"], "detector-1");
  EXPECT_EQ(get_json("/api/v1/jobs/%64etector")["id"], "detector-2");
}

TEST_F(ApiTest, UnknownThingsAre404) {
  for (const char* target :
       {"/api/v1/jobs/none", "/api/v1/jobs/none/spec", "/api/v1/jobs/none/logs",
        "/api/v1/jobs/none/metrics", "/api/v1/jobs/none/checkpoints", "/api/v1/jobs/none/shards",
        "/api/v1/pipelines/none"}) {
    expect_problem(get(target), 404, "none");
  }
  for (const char* verb : {"cancel", "resume", "checkpoints"}) {
    expect_problem(request("POST", std::string("/api/v1/jobs/none/") + verb), 404, "none");
  }
  for (const char* target :
       {"/api/v1", "/api/v1/jobs/", "/api/v2/jobs", "/api/v1/jobs/a/b/c", "", "*"}) {
    expect_problem(get(target), 404, "no such path");
  }
}

TEST_F(ApiTest, AnotherMethodIs405WithWhatIsAllowed) {
  const HttpResponse jobs = request("DELETE", "/api/v1/jobs");
  expect_problem(jobs, 405, "found DELETE");
  EXPECT_EQ(jobs.headers.at("Allow"), "POST, GET, HEAD");
  EXPECT_EQ(request("GET", "/api/v1/jobs/x/cancel").headers.at("Allow"), "POST");
  EXPECT_EQ(request("POST", "/healthz").status, 405);
}

TEST_F(ApiTest, HeadIsAnsweredAsGet) {
  EXPECT_EQ(request("HEAD", "/api/v1/jobs").status, 200);
  EXPECT_EQ(request("HEAD", "/api/v1/jobs/none").status, 404);
}

TEST_F(ApiTest, CancelsAndResumes) {
  submit(detector_spec("detector"));
  const HttpResponse cancelled = request("POST", "/api/v1/jobs/detector-1/cancel");
  EXPECT_EQ(cancelled.status, 202) << cancelled.body;
  EXPECT_EQ(json::parse(cancelled.body)["state"], "cancelled");
  EXPECT_EQ(request("POST", "/api/v1/jobs/detector-1/cancel").status, 202) << "not repeatable";
  const HttpResponse resumed = request("POST", "/api/v1/jobs/detector-1/resume");
  EXPECT_EQ(resumed.status, 202) << resumed.body;
  EXPECT_EQ(json::parse(resumed.body)["state"], "queued");
}

TEST_F(ApiTest, WhatTheStateForbidsIs409WithTheReason) {
  submit(detector_spec("detector"));
  expect_problem(request("POST", "/api/v1/jobs/detector-1/resume"), 409, "queued");
  expect_problem(request("POST", "/api/v1/jobs/detector-1/checkpoints"), 409, "queued");
}

TEST_F(ApiTest, AsksForACheckpointAndListsThem) {
  const std::string id = run_job("detector");
  std::vector<MessageType> sent;
  coordinator_.set_sender(
      [&sent](const RankId&, const Message& message) { sent.push_back(message.type); });
  const HttpResponse asked = request("POST", "/api/v1/jobs/" + id + "/checkpoints");
  EXPECT_EQ(asked.status, 202) << asked.body;
  EXPECT_EQ(asked.headers.at("Location"), "/api/v1/jobs/" + id + "/checkpoints");
  EXPECT_THAT(sent, ElementsAre(MessageType::kCheckpointNow));

  const std::string folder = checkpoints_folder(coordinator_.run_folder(id)) + "/00000010-a1";
  report(id, MessageType::kCheckpointCommitted, 1,
         {{"attempt", 1},
          {"iteration", 10},
          {"images", 1280},
          {"folder", folder},
          {"digest", std::string(64, 'a')},
          {"bytes", 99}});
  const json list = get_json("/api/v1/jobs/" + id + "/checkpoints");
  ASSERT_EQ(list["items"].size(), 1);
  EXPECT_EQ(list["items"][0]["iteration"], 10);
  EXPECT_EQ(list["items"][0]["bytes"], 99);
  EXPECT_EQ(list["items"][0]["digest"], std::string(64, 'a'));
  EXPECT_TRUE(list["items"][0]["frechet"].is_null());
}

TEST_F(ApiTest, ShowsMetricsByKey) {
  const std::string id = run_job("detector");
  for (int iteration = 1; iteration <= 50; ++iteration) {
    report(id, MessageType::kProgress, 0,
           {{"stage", "training"},
            {"iteration", iteration},
            {"iterations", 50},
            {"images", iteration * 128},
            {"images_total", 6400},
            {"images_per_second", 900.0},
            {"seconds_left", 1.0},
            {"metrics", {{"loss", 1.0 / iteration}, {"accuracy", 0.5}}}});
  }
  now_ += 5;
  coordinator_.tick();
  const json all = get_json("/api/v1/jobs/" + id + "/metrics");
  EXPECT_EQ(all["job"], id);
  std::vector<std::string> keys;
  for (const json& series : all["series"]) keys.push_back(series["key"]);
  EXPECT_THAT(keys, IsSupersetOf({"loss", "accuracy"}));
  const json loss = get_json("/api/v1/jobs/" + id + "/metrics?keys=loss");
  ASSERT_EQ(loss["series"].size(), 1);
  EXPECT_EQ(loss["series"][0]["key"], "loss");
  ASSERT_EQ(loss["series"][0]["points"].size(), 50);
  EXPECT_EQ(loss["series"][0]["points"][1], json({{"stage", "training"},
                                                  {"iteration", 2},
                                                  {"images", 256},
                                                  {"attempt", 1},
                                                  {"value", 0.5}}));
  const json few = get_json("/api/v1/jobs/" + id + "/metrics?keys=loss&max_points=10");
  EXPECT_LE(few["series"][0]["points"].size(), 10);
  expect_problem(get("/api/v1/jobs/" + id + "/metrics?max_points=1"), 400, "max_points");
}

TEST_F(ApiTest, ReadsLogsPieceByPiece) {
  const std::string id = run_job("detector");
  const std::string run = coordinator_.run_folder(id);
  std::filesystem::create_directories(std::filesystem::path(log_file(run, 1, 0)).parent_path());
  spit(log_file(run, 1, 0), "one\ntwo\nthree\n");
  spit(mpirun_log_file(run, 1), "mpirun speaks\n");

  const HttpResponse first = get("/api/v1/jobs/" + id + "/logs?limit=4");
  EXPECT_EQ(first.status, 200);
  EXPECT_EQ(first.content_type, "text/plain; charset=utf-8");
  EXPECT_EQ(first.body, "one\n");
  EXPECT_EQ(first.headers.at("X-Next-Offset"), "4");
  const HttpResponse rest = get("/api/v1/jobs/" + id + "/logs?rank=0&attempt=1&offset=4");
  EXPECT_EQ(rest.body, "two\nthree\n");
  EXPECT_EQ(rest.headers.at("X-Next-Offset"), "14");
  const HttpResponse end = get("/api/v1/jobs/" + id + "/logs?offset=14");
  EXPECT_EQ(end.body, "");
  EXPECT_EQ(end.headers.at("X-Next-Offset"), "14");
  EXPECT_EQ(get("/api/v1/jobs/" + id + "/logs?rank=mpirun").body, "mpirun speaks\n");

  expect_problem(get("/api/v1/jobs/" + id + "/logs?attempt=2"), 404, "attempt 2");
  expect_problem(get("/api/v1/jobs/" + id + "/logs?rank=1"), 404, "rank");
  expect_problem(get("/api/v1/jobs/" + id + "/logs?rank=../../x"), 400, "rank");
  expect_problem(get("/api/v1/jobs/" + id + "/logs?offset=-1"), 400, "offset");
}

TEST_F(ApiTest, AJobThatHasNotStartedHasAnEmptyLog) {
  submit(detector_spec("detector"));
  const HttpResponse response = get("/api/v1/jobs/detector/logs");
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.body, "");
  EXPECT_EQ(response.headers.at("X-Next-Offset"), "0");
}

TEST_F(ApiTest, ShowsShards) {
  submit({{"name", "pairs"},
          {"kind", "generate_pairs"},
          {"teacher", "/teacher"},
          {"count", 100},
          {"rows_per_shard", 50},
          {"batch", 25}});
  coordinator_.tick();
  ASSERT_FALSE(coordinator_
                   .hello({.job = "pairs-1",
                           .attempt = 1,
                           .rank = 0,
                           .ranks = 1,
                           .pid = 7,
                           .host = "",
                           .commit = ""})
                   .refusal);
  report("pairs-1", MessageType::kLeaseRequest, 0, json::object());
  const json shards = get_json("/api/v1/jobs/pairs-1/shards");
  ASSERT_EQ(shards["items"].size(), 2);
  EXPECT_EQ(shards["items"][1]["first"], 50);
  EXPECT_EQ(shards["items"][1]["count"], 50);
  EXPECT_EQ(shards["items"][1]["state"], "leased");
}

TEST_F(ApiTest, ShowsTheSpecThatTheWorkerGets) {
  submit(detector_spec("detector"));
  const json spec = get_json("/api/v1/jobs/detector/spec");
  EXPECT_EQ(spec["output"], coordinator_.run_folder("detector-1"));
  EXPECT_EQ(spec["name"], "detector");
}

TEST_F(ApiTest, SaysHowItIs) {
  EXPECT_EQ(get_json("/healthz")["status"], "ok");
  EXPECT_EQ(get_json("/readyz")["status"], "ready");
  api_.set_stopping();
  expect_problem(get("/readyz"), 503, "stopping");
  EXPECT_EQ(get("/healthz").status, 200);
}

TEST_F(ApiTest, KeepsOutPagesOfOtherSites) {
  const auto with = [this](const std::string& host, const std::string& origin) {
    std::map<std::string, std::string> headers = {{"host", host}};
    if (!origin.empty()) headers["origin"] = origin;
    return request("GET", "/api/v1/jobs", "", headers);
  };
  expect_problem(with("evil.example:8080", ""), 403, "Host");
  expect_problem(with("127.0.0.1:8080", "http://evil.example"), 403, "Origin");
  expect_problem(with("127.0.0.1:8080", "http://127.0.0.1:9000"), 403, "Origin");
  expect_problem(with("127.0.0.1:8080", "null"), 403, "Origin");
  EXPECT_EQ(with("127.0.0.1:8080", "http://127.0.0.1:8080").status, 200);
  EXPECT_EQ(with("localhost:8080", "").status, 200);
  EXPECT_EQ(with("[::1]:8080", "").status, 200);
  EXPECT_EQ(with("[::1]", "").status, 200);
}

TEST_F(ApiTest, SurvivesTargetsThatAreNoUtf8) {
  const HttpResponse response = get("/\xff\xfe");
  expect_problem(response, 404, "no such path");
}

}  // namespace
}  // namespace onestep
