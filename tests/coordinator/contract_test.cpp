#include "coordinator/contract.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <set>
#include <sstream>

#include "common/hash.h"
#include "common/run_folder.h"
#include "coordinator/api.h"
#include "coordinator/backup.h"
#include "support/files.h"
#include "support/idle_launcher.h"
#include "support/temp_folder.h"

namespace onestep {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

class Contract : public testing::Test {
 protected:
  HttpResponse call(const std::string& method, const std::string& target, const std::string& body = "",
                    std::map<std::string, std::string> headers = {}) {
    headers.emplace("host", "127.0.0.1");
    headers.emplace("content-type", "application/json");
    return api_->handle({method, target, std::move(headers), body});
  }
  HttpResponse submit(const std::string& name, const std::string& key = "") {
    const json spec = {{"name", name}, {"kind", "train_detector"}, {"dataset", {{"path", "digits.h5"}}}};
    std::map<std::string, std::string> headers;
    if (!key.empty()) headers["idempotency-key"] = key;
    return call("POST", "/api/v1/jobs", json{{"spec", spec}, {"base", folder_ / "root"}}.dump(), headers);
  }
  // Another process on the same folder.
  void restart() {
    api_.reset();
    coordinator_.reset();
    start();
  }
  void start() {
    std::filesystem::create_directories(folder_ / "root");
    coordinator_ = std::make_unique<Coordinator>(
        CoordinatorOptions{.data = folder_ / "data", .slots = 1, .clock = [this] { return now_; }, .roots = roots()},
        std::make_unique<IdleLauncher>());
    api_ = std::make_unique<Api>(*coordinator_, ApiOptions{.roots = roots(), .queue = 5});
  }
  [[nodiscard]] FileRoots roots() const { return FileRoots({folder_ / "root", folder_ / "data"}); }
  void SetUp() override { start(); }

  TempFolder folder_;
  double now_ = 1'700'000'000;
  std::unique_ptr<Coordinator> coordinator_;
  std::unique_ptr<Api> api_;
};

TEST_F(Contract, TheDocumentListsEveryOperationOnce) {
  const json document = json::parse(call("GET", "/api/v1/openapi.json").body);
  EXPECT_EQ(document["openapi"], "3.1.0");
  std::set<std::string> ids;
  for (const auto& [path, methods] : document["paths"].items()) {
    for (const auto& [method, operation] : methods.items()) {
      EXPECT_TRUE(ids.insert(operation["operationId"]).second);
      for (const auto& [status, answer] : operation["responses"].items()) {
        EXPECT_TRUE(answer.contains("description")) << path << " " << status;
      }
      const bool open = path == "/healthz" || path == "/readyz";
      EXPECT_EQ(operation["responses"].contains("401"), !open) << path;
    }
  }
  EXPECT_EQ(ids.size(), operations().size());
  // Every reference is there.
  const std::string text = document.dump();
  const std::string prefix = "#/components/schemas/";
  for (std::size_t at = text.find(prefix); at != std::string::npos; at = text.find(prefix, at + 1)) {
    const std::string name = text.substr(at + prefix.size(), text.find('"', at) - at - prefix.size());
    EXPECT_TRUE(document["components"]["schemas"].contains(name)) << name;
  }
  const json& distill = document["components"]["schemas"]["Job_distill"];
  EXPECT_EQ(distill["properties"]["dmd"]["properties"]["batch"]["minimum"], 1);
  EXPECT_THAT(distill["required"].get<std::vector<std::string>>(), ElementsAre("name", "kind", "teacher"));
}

TEST_F(Contract, EveryOperationHasAHandlerAndARole) {
  for (const Operation& operation : operations()) {
    std::string path = operation.path;
    for (const char* part : {"{id}", "{checkpoint}", "{file}"}) {
      if (const std::size_t at = path.find(part); at != std::string::npos) path.replace(at, std::string(part).size(), "none");
    }
    EXPECT_LT(call(operation.method, path).status, 500) << operation.id;
    const bool of_tokens = operation.path.starts_with("/api/v1/tokens");
    EXPECT_EQ(operation.role == Role::kAdmin, of_tokens) << operation.id;
    EXPECT_EQ(operation.role == Role::kSubmit, operation.method != "GET" && !of_tokens) << operation.id;
  }
}

TEST_F(Contract, NamesEveryWrongFieldOfAQuery) {
  const HttpResponse response = call("GET", "/api/v1/jobs?limit=0&state=lost&colour=red&page_token=x");
  EXPECT_EQ(response.status, 400);
  std::vector<std::string> parameters;
  const json problem = json::parse(response.body);
  for (const json& error : problem["errors"]) parameters.push_back(error["parameter"]);
  EXPECT_THAT(parameters, testing::UnorderedElementsAre("limit", "state", "colour", "page_token"));
  EXPECT_EQ(call("GET", "/api/v1/events?types=state,").status, 400);
  EXPECT_EQ(call("GET", "/api/v1/jobs?limit=1&limit=2").status, 400);
  EXPECT_EQ(call("GET", "/api/v1/jobs?limit=%zz").status, 400);
  ASSERT_EQ(submit("d").status, 201);
  for (const char* most : {"/api/v1/jobs?limit=1000", "/api/v1/jobs/d/metrics?max_points=100000", "/api/v1/jobs/d/logs?limit=1048576"}) {
    EXPECT_EQ(call("GET", most).status, 200) << most;
  }
  for (const char* more : {"/api/v1/jobs?limit=1001", "/api/v1/jobs/d/metrics?max_points=100001", "/api/v1/jobs/d/logs?limit=1048577"}) {
    EXPECT_EQ(call("GET", more).status, 400) << more;
  }
}

TEST_F(Contract, TheSameKeyAndBodyIsSubmittedOnce) {
  const HttpResponse first = submit("detector", "k1");
  ASSERT_EQ(first.status, 201) << first.body;
  coordinator_->tick();  // its state moves on; its answer does not
  restart();
  const HttpResponse again = submit("detector", "k1");
  EXPECT_EQ(again.status, 201);
  EXPECT_EQ(again.body, first.body);
  EXPECT_EQ(again.headers, first.headers);
  EXPECT_EQ(json::parse(call("GET", "/api/v1/jobs").body)["items"].size(), 1);
  const HttpResponse other = submit("another", "k1");
  EXPECT_EQ(other.status, 422);
  EXPECT_THAT(other.body, HasSubstr("another body"));
  EXPECT_EQ(submit("detector", "k2").status, 201) << "another key is another submission";
  EXPECT_EQ(submit("detector", "no spaces").status, 400);
  EXPECT_EQ(submit("detector", std::string(129, 'k')).status, 400);
  now_ += 8 * 86400;
  EXPECT_EQ(submit("another", "k1").status, 201) << "after a week a key is forgotten";
}

TEST_F(Contract, ARefusedSubmissionUsesNoKey) {
  EXPECT_EQ(submit("9", "k").status, 422);
  EXPECT_EQ(submit("detector", "k").status, 201);
}

TEST_F(Contract, AFullQueueSaysWhenToComeAgain) {
  for (int i = 0; i < 5; ++i) ASSERT_EQ(submit("d").status, 201);
  const HttpResponse full = submit("d");
  EXPECT_EQ(full.status, 429);
  EXPECT_EQ(full.headers.at("Retry-After"), "5");
  EXPECT_EQ(call("POST", "/api/v1/jobs/d-1/cancel").status, 202);
  EXPECT_EQ(submit("d").status, 201);
}

TEST_F(Contract, PagesLeadToEachOther) {
  for (int i = 0; i < 5; ++i) submit("d" + std::to_string(i));
  for (const std::string list : {"/api/v1/jobs", "/api/v1/pipelines"}) {
    std::vector<std::string> names;
    std::string target = list + "?limit=2";
    for (int pages = 0; !target.empty() && pages < 9; ++pages) {
      const HttpResponse response = call("GET", target);
      const json page = json::parse(response.body);
      for (const json& item : page["items"]) names.push_back(item["name"]);
      target = page["next"].is_null() ? "" : page["next"];
      EXPECT_EQ(response.headers.count("Link") == 1 ? response.headers.at("Link") : "", target.empty() ? "" : "<" + target + ">; rel=\"next\"");
    }
    EXPECT_THAT(names, ElementsAre("d0", "d1", "d2", "d3", "d4")) << list;
  }
}

TEST_F(Contract, ASpecNamesFilesBeneathTheRootsAlone) {
  const auto pointers = [&](const json& spec, const std::string& base) {
    const HttpResponse response = call("POST", "/api/v1/jobs", json{{"spec", spec}, {"base", base}}.dump());
    std::vector<std::string> found;
    if (response.status == 201) return found;
    EXPECT_EQ(response.status, 422) << response.body;
    const json document = json::parse(response.body);
    for (const json& error : document["errors"]) found.push_back(error["pointer"]);
    return found;
  };
  const auto spec = [](const std::string& dataset, const std::string& output = "") {
    return json{{"name", "d"}, {"kind", "train_detector"}, {"dataset", {{"path", dataset}}}, {"output", output}};
  };
  const std::string root = folder_ / "root";
  std::filesystem::create_symlink("/etc", root + "/link");
  EXPECT_THAT(pointers(spec("digits.h5"), root), ElementsAre());
  EXPECT_THAT(pointers(spec("digits.h5"), "/etc"), ElementsAre("/base"));
  EXPECT_THAT(pointers(spec("digits.h5"), root + "/../.."), ElementsAre("/base"));
  EXPECT_THAT(pointers(spec("/etc/passwd"), root), ElementsAre("/spec/dataset/path"));
  EXPECT_THAT(pointers(spec("../../../etc/passwd", "/tmp/elsewhere"), root), testing::UnorderedElementsAre("/spec/dataset/path", "/spec/output"));
  EXPECT_THAT(pointers(spec("link/passwd"), root), ElementsAre("/spec/dataset/path"));
  const json pipeline = {{"pipeline", "p"}, {"jobs", {spec("a.h5"), spec("/etc/shadow")}}};
  json second = pipeline;
  second["jobs"][1]["name"] = "e";
  EXPECT_THAT(pointers(second, root), ElementsAre("/spec/jobs/1/dataset/path"));
}

TEST_F(Contract, TheRootsAreLookedAtAgainWhenAJobIsLaunched) {
  const std::string root = folder_ / "root";
  const auto submit_one = [&](const std::string& name, const std::string& dataset, const std::string& output) {
    const json spec = {{"name", name}, {"kind", "train_detector"}, {"dataset", {{"path", dataset}}}, {"output", output}};
    const HttpResponse answer = call("POST", "/api/v1/jobs", json{{"spec", spec}, {"base", root}}.dump());
    EXPECT_EQ(answer.status, 201) << answer.body;
    return json::parse(answer.body)["jobs"][0]["id"].get<std::string>();
  };
  std::filesystem::create_directories(root + "/sets");
  std::filesystem::create_directories(root + "/runs");
  const std::string read = submit_one("read", "sets/digits.h5", ""), write = submit_one("write", "sets/digits.h5", "runs/mine"),
                    honest = submit_one("honest", "other/digits.h5", "");
  std::filesystem::create_directories(folder_ / "elsewhere");
  for (const char* replaced : {"/sets", "/runs"}) {
    std::filesystem::remove_all(root + replaced);
    std::filesystem::create_symlink(folder_ / "elsewhere", root + replaced);
  }
  for (int turn = 0; turn < 3; ++turn) coordinator_->tick();
  for (const std::string& id : {read, write}) {
    const JobRecord job = coordinator_->job(id);
    EXPECT_EQ(job.state, JobState::kFailed);
    EXPECT_THAT(job.reason, HasSubstr("a symbolic link on the way"));
    EXPECT_THAT(job.reason, HasSubstr("not retried"));
  }
  EXPECT_EQ(coordinator_->job(honest).state, JobState::kStarting);
  EXPECT_TRUE(std::filesystem::is_empty(folder_ / "elsewhere")) << "nothing was written through the link";
}

TEST_F(Contract, BombsAreRefused) {
  const auto status = [&](const std::string& body) { return call("POST", "/api/v1/jobs", body).status; };
  EXPECT_EQ(status(std::string(100'000, '[')), 400);
  EXPECT_EQ(status("{\"spec\":" + std::string(65, '[') + std::string(65, ']') + ",\"base\":\"/\"}"), 400);
  EXPECT_EQ(status("{\"base\":\"/a\",\"base\":\"/b\",\"spec\":{}}"), 400);
  EXPECT_EQ(status("{\"spec\":1e400,\"base\":\"/\"}"), 400);
  EXPECT_EQ(status("\xff\xfe{}"), 400);
  EXPECT_EQ(call("GET", "/api/v1/jobs/" + std::string(7000, 'x')).status, 404);
}

// A job with a checkpoint on disk and a picture.
class Downloads : public Contract {
 protected:
  void SetUp() override {
    Contract::SetUp();
    ASSERT_EQ(submit("d").status, 201);
    coordinator_->tick();
    run_ = coordinator_->run_folder("d-1");
    coordinator_->hello({.job = "d-1", .attempt = 1, .rank = 0, .ranks = 1, .pid = 1, .host = "h", .commit = ""});
    checkpoint_ = run_ + "/checkpoints/00000010-a1";
    std::filesystem::create_directories(checkpoint_);
    spit(checkpoint_ + "/state.safetensors", weights_);
    const json manifest = {{"files", {{{"name", "state.safetensors"}, {"bytes", 5}, {"sha256", sha256(weights_)}},
                                      {{"name", "../../job.json"}, {"bytes", 5}, {"sha256", "x"}},
                                      {{"name", "link"}, {"bytes", 5}, {"sha256", "y"}}}}};
    std::filesystem::create_symlink("/etc/passwd", checkpoint_ + "/link");
    spit(checkpoint_ + "/manifest.json", manifest.dump());
    const json body = {{"attempt", 1}, {"iteration", 10}, {"images", 320}, {"folder", checkpoint_}, {"digest", "abc"}, {"bytes", 5}};
    const MessageAnswer answer =
        coordinator_->on_messages({{{"d-1", 1, 0}, {MessageType::kCheckpointCommitted, 1, body}}}).front();
    ASSERT_FALSE(answer.refusal) << answer.refusal->reason;
  }
  static std::string bytes(const HttpResponse& response) {
    return response.file ? response.file->file.read_at(response.file->offset, response.file->length) : "";
  }
  const std::string weights_ = "abcde";
  std::string run_, checkpoint_;
};

TEST_F(Downloads, OfACheckpointByItsListAlone) {
  const std::string base = "/api/v1/jobs/d-1/checkpoints/00000010-a1/files/";
  EXPECT_EQ(bytes(call("GET", base + "state.safetensors")), weights_);
  EXPECT_EQ(call("GET", base + "state.safetensors").headers.at("ETag"), "\"" + sha256(weights_) + "\"");
  const HttpResponse part = call("GET", base + "state.safetensors", "", {{"range", "bytes=1-2"}});
  EXPECT_EQ(part.status, 206);
  EXPECT_EQ(bytes(part), "bc");
  EXPECT_EQ(call("GET", base + "state.safetensors", "", {{"if-none-match", "\"" + sha256(weights_) + "\""}}).status, 304);
  EXPECT_EQ(bytes(call("GET", base + "manifest.json")), slurp(checkpoint_ + "/manifest.json"));
  for (const char* name : {"other", "..%2F..%2Fjob.json", "link", "%2Fetc%2Fpasswd", "..", "."}) {
    const HttpResponse response = call("GET", base + name);
    EXPECT_TRUE(response.status == 404 || response.status == 409) << name << response.status;
    EXPECT_FALSE(response.file) << name;
  }
  EXPECT_EQ(call("GET", "/api/v1/jobs/d-1/checkpoints/..%2F..%2F/files/job.json").status, 404);
  std::filesystem::remove(checkpoint_ + "/link");
  spit(checkpoint_ + "/manifest.json", json{{"files", {{{"name", "state.safetensors"}, {"sha256", "s"}}}}}.dump());
  const json shown = json::parse(call("GET", "/api/v1/jobs/d-1/checkpoints/00000010-a1").body);
  EXPECT_EQ(shown["files"].size(), 2);
  EXPECT_EQ(shown["files"][1]["bytes"], 5);
}

TEST_F(Downloads, AManifestThatIsTooLargeIsRefusedWhole) {
  const std::string target = "/api/v1/jobs/d-1/checkpoints/00000010-a1";
  std::filesystem::remove(checkpoint_ + "/link");
  const std::string manifest = slurp(checkpoint_ + "/manifest.json");
  spit(checkpoint_ + "/manifest.json", manifest + std::string((16 << 20) - manifest.size(), ' '));
  EXPECT_EQ(call("GET", target).status, 200);
  std::filesystem::resize_file(checkpoint_ + "/manifest.json", (16 << 20) + 1);
  for (const std::string& each : {target, target + "/files/state.safetensors"}) {
    const HttpResponse refused = call("GET", each);
    EXPECT_EQ(refused.status, 409) << each;
    EXPECT_THAT(refused.body, HasSubstr("expected at most 16777216 bytes, found 16777217"));
  }
}

TEST_F(Downloads, OfAnExportThatHasSucceeded) {
  EXPECT_EQ(call("GET", "/api/v1/jobs/d-1/export").status, 409);
  EXPECT_EQ(call("GET", "/api/v1/jobs/d-1/export/model.safetensors").status, 409);
}

TEST_F(Downloads, ALogThatIsALinkIsNotFollowed) {
  std::filesystem::create_directories(run_ + "/logs");
  std::filesystem::create_symlink("/etc/passwd", log_file(run_, 1, 0));
  const HttpResponse response = call("GET", "/api/v1/jobs/d-1/logs");
  EXPECT_EQ(response.status, 409) << response.body;
  const HttpResponse stream = call("GET", "/api/v1/jobs/d-1/events?types=log");
  ASSERT_TRUE(stream.stream);
  api_->publish_events();
  EXPECT_THAT(stream.stream->next().value_or(""), testing::Not(HasSubstr("root:")));
}

TEST_F(Downloads, ABackupIsWholeWhileTheCoordinatorRuns) {
  const BackupSummary made = back_up(folder_ / "data", folder_ / "copy");
  EXPECT_EQ(made.num_jobs, 1);
  EXPECT_EQ(slurp(folder_ / "copy/jobs/d-1/checkpoints/00000010-a1/manifest.json"), slurp(checkpoint_ + "/manifest.json"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "copy/jobs/d-1/checkpoints/00000010-a1/state.safetensors"));
  std::istringstream sums(slurp(folder_ / "copy/SHA256SUMS"));
  int count = 0;
  for (std::string digest, name; sums >> digest >> name; ++count) EXPECT_EQ(sha256_file(folder_ / "copy" + "/" + name), digest) << name;
  EXPECT_GE(count, 3);
  EXPECT_THROW(back_up(folder_ / "data", folder_ / "copy"), Error) << "nothing is overwritten";
  EXPECT_EQ(submit("after").status, 201);
  // Restored: a coordinator on the copy knows what it knew then.
  Store restored(folder_ / "copy/coordinator.sqlite");
  EXPECT_TRUE(restored.job("d-1"));
  EXPECT_FALSE(restored.job("after-2"));
  EXPECT_EQ(restored.checkpoints("d-1").size(), 1);
}

}  // namespace
}  // namespace onestep
