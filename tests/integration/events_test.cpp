// Events and `submit --follow` across a coordinator that is killed and comes back.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <set>
#include <thread>

#include "cli/job_commands.h"
#include "common/run_folder.h"
#include "integration/finished_smoke.h"
#include "integration/service.h"
#include "support/files.h"
#include "support/temp_folder.h"

namespace onestep {
namespace {

using ::testing::HasSubstr;

class Events : public ::testing::Test {
 protected:
  const FinishedSmoke smoke_ = finished_smoke();
  const TempFolder folder_;
  Service service_{folder_ / "data"};
};

struct Kept {
  std::vector<std::string> ids;  // of the stored events, in order
  std::string log;
  std::string last_id;
};

// Keeps what one connection says until the job has ended in `state`; a broken connection is no error here.
bool listen(const Client& client, const std::string& job, const std::string& state, Kept& kept) {
  bool ended = false;
  try {
    client.stream(job_target(job, "/events"), kept.last_id, [&](const ServerEvent& event) {
      if (event.type.empty() || event.type == "progress") return true;
      const nlohmann::json body = nlohmann::json::parse(event.data);
      if (event.type == "log") {
        kept.log += body.at("text").get<std::string>();
      } else {
        kept.ids.push_back(event.id.substr(0, event.id.find('.')));
      }
      kept.last_id = event.id;
      ended = event.type == "state" && body.at("state") == state;
      return !ended;
    });
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kUnavailable) throw;
  }
  return ended;
}

TEST_F(Events, NothingIsLostAndNothingComesTwiceAcrossKilledCoordinators) {
  const std::string id = service_.submit(long_student(smoke_, 2)).at(0);
  const Client client(parse_server_url(service_.url()));
  Kept kept;
  std::atomic<bool> ended = false;
  std::thread reader([&] {
    while (!ended) {
      if (listen(client, id, "succeeded", kept)) ended = true;
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
  });
  for (int kill = 0; kill < 3; ++kill) {
    service_.wait_for(id, {"running", "succeeded"});
    std::this_thread::sleep_for(std::chrono::milliseconds(700 + 450 * kill));
    service_.kill_hard();
    service_.start();
  }
  service_.wait_for(id, {"succeeded"});
  wait_until("the reader has heard of the end", 60, [&] { return ended.load(); });
  reader.join();

  Kept replay;
  ASSERT_TRUE(listen(client, id, "succeeded", replay));
  EXPECT_EQ(kept.ids, replay.ids);
  EXPECT_EQ(std::set<std::string>(kept.ids.begin(), kept.ids.end()).size(), kept.ids.size());
  EXPECT_GT(kept.ids.size(), 5u);
  EXPECT_EQ(kept.log, slurp(log_file(service_.run_folder(id), 1, 0)));
  EXPECT_EQ(replay.log, kept.log);
}

TEST_F(Events, FollowGoesOnWhenTheCoordinatorComesBack) {
  spit(folder_ / "job.json", long_student(smoke_, 2).dump());
  std::string output;
  std::thread follower([&] {
    output = shell("onestep submit " + folder_ / "job.json" + " --follow --json --url " + service_.url() +
                   " 2>&1; echo \"exit $?\"")
                 .output;
  });
  std::string id;
  wait_until("the job runs", 60, [&] {
    const nlohmann::json page = service_.client().get("/api/v1/jobs?state=running");
    for (const nlohmann::json& job : page.at("items")) id = job.at("id");
    return !id.empty();
  });
  service_.kill_hard();
  std::this_thread::sleep_for(std::chrono::seconds(1));
  service_.start();
  service_.wait_for(id, {"succeeded"});
  follower.join();
  EXPECT_THAT(output, HasSubstr("does not answer"));
  EXPECT_THAT(output, HasSubstr("is back"));
  EXPECT_THAT(output, HasSubstr("\"state\":\"succeeded\""));
  EXPECT_THAT(output, HasSubstr("exit 0"));
}

TEST_F(Events, LogsFollowShowsTheWholeLogAcrossAKill) {
  const std::string id = service_.submit(long_student(smoke_, 2)).at(0);
  std::string output;
  std::thread follower([&] { output = shell("onestep logs " + id + " --follow --url " + service_.url()).output; });
  service_.wait_for(id, {"running"});
  service_.kill_hard();
  service_.start();
  service_.wait_for(id, {"succeeded"});
  follower.join();
  EXPECT_EQ(output, slurp(log_file(service_.run_folder(id), 1, 0)));
}

}  // namespace
}  // namespace onestep
