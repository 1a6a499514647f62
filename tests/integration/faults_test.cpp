// Whatever is killed, the job ends without help in the bits of an undisturbed run.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <signal.h>

#include "common/checkpoint_manifest.h"
#include "common/run_folder.h"
#include "integration/finished_smoke.h"
#include "integration/service.h"
#include "support/files.h"
#include "support/temp_folder.h"

namespace onestep {
namespace {

using ::testing::HasSubstr;

class Faults : public ::testing::Test {
 protected:
  // A student on two ranks, running, with at least one checkpoint behind it.
  std::string start_student() {
    const std::string id = service_.submit(long_student(smoke_, 2)).at(0);
    service_.wait_for_checkpoint(id);
    return id;
  }

  void expect_undisturbed_bits(const std::string& id, std::size_t attempts) {
    const nlohmann::json job = service_.wait_for(id, {"succeeded"});
    EXPECT_EQ(job.at("digest"), expected_);
    EXPECT_EQ(job.at("attempts").size(), attempts) << job.at("attempts");
  }

  const FinishedSmoke smoke_ = finished_smoke();
  const std::string expected_ = long_student_digest(smoke_);
  const TempFolder folder_;
  Service service_{folder_ / "data"};
};

TEST_F(Faults, KilledRank) {
  const std::string id = start_student();
  const std::vector<pid_t> ranks = service_.ranks(id);
  ASSERT_EQ(ranks.size(), 2u);
  ASSERT_EQ(::kill(ranks.back(), SIGKILL), 0);
  expect_undisturbed_bits(id, 2);
  EXPECT_TRUE(service_.ranks(id).empty());
}

TEST_F(Faults, KilledMpirun) {
  const std::string id = start_student();
  const std::vector<pid_t> launchers = service_.mpiruns(id);
  ASSERT_EQ(launchers.size(), 1u);
  ASSERT_EQ(::kill(launchers.front(), SIGKILL), 0);
  expect_undisturbed_bits(id, 2);
  EXPECT_TRUE(service_.ranks(id).empty());
}

TEST_F(Faults, KilledCoordinatorAdoptsWhatRuns) {
  const std::string id = start_student();
  const std::vector<pid_t> before = service_.mpiruns(id);
  service_.kill_hard();
  service_.start();
  EXPECT_EQ(service_.mpiruns(id), before) << "neither killed nor started twice";
  expect_undisturbed_bits(id, 1);
}

TEST_F(Faults, CoordinatorAwayUntilTheEndStillLearnsIt) {
  const std::string id = start_student();
  service_.kill_hard();
  wait_until("the worker ends alone", 300, [&] { return service_.mpiruns(id).empty() && service_.ranks(id).empty(); });
  service_.start();
  expect_undisturbed_bits(id, 1);
}

TEST_F(Faults, EverythingKilledAtOnce) {
  const std::string id = start_student();
  service_.kill_hard();
  for (const pid_t pid : service_.mpiruns(id)) ::kill(pid, SIGKILL);
  for (const pid_t pid : service_.ranks(id)) ::kill(pid, SIGKILL);
  service_.start();
  expect_undisturbed_bits(id, 2);
}

TEST_F(Faults, CancelledAndResumed) {
  const std::string id = start_student();
  EXPECT_EQ(shell("onestep cancel " + id + " --url " + service_.url()).exit_status, 0);
  service_.wait_for(id, {"cancelled"});
  EXPECT_TRUE(service_.ranks(id).empty());
  EXPECT_EQ(shell("onestep resume " + id + " --url " + service_.url()).exit_status, 0);
  expect_undisturbed_bits(id, 2);
  const ShellResult again = shell("onestep cancel " + id + " --url " + service_.url());
  EXPECT_EQ(again.exit_status, 8) << again.error;
}

TEST_F(Faults, CheckpointOnRequest) {
  const std::string id = start_student();
  EXPECT_EQ(shell("onestep checkpoint " + id + " --url " + service_.url()).exit_status, 0);
  wait_until("a checkpoint between the regular ones", 120, [&] {
    const nlohmann::json checkpoints = service_.client().get("/api/v1/jobs/" + id + "/checkpoints").at("items");
    for (const nlohmann::json& checkpoint : checkpoints) {
      if (checkpoint.at("iteration").get<int>() % 10 != 0) return true;
    }
    return false;
  });
  expect_undisturbed_bits(id, 1);
}

TEST_F(Faults, ABadNewestCheckpointIsSkippedAndKept) {
  const std::string id = start_student();
  EXPECT_EQ(shell("onestep cancel " + id + " --url " + service_.url()).exit_status, 0);
  service_.wait_for(id, {"cancelled"});
  const std::vector<std::string> checkpoints = list_checkpoints(checkpoints_folder(service_.run_folder(id)));
  ASSERT_FALSE(checkpoints.empty());
  const std::string newest = checkpoints.back();
  const std::string shard = newest + "/" + read_checkpoint_manifest(newest, false).files.at(0).name;
  const std::string content = slurp(shard);
  spit(shard, with_flipped_bit(content, content.size() * 4));
  EXPECT_EQ(shell("onestep resume " + id + " --url " + service_.url()).exit_status, 0);
  expect_undisturbed_bits(id, 2);
  const ShellResult logs = shell("onestep logs " + id + " --attempt 2 --url " + service_.url());
  EXPECT_THAT(logs.output, HasSubstr(newest));
  EXPECT_NE(slurp(shard), content) << "kept for inspection";
}

TEST(WorkerAlone, KilledAndStartedAgainGoesOn) {
  const FinishedSmoke smoke = finished_smoke();
  const std::string expected = long_student_digest(smoke);
  const TempFolder folder;
  spit(folder / "job.json", long_student(smoke, 2).dump());
  const std::string command = "mpirun --allow-run-as-root --oversubscribe --bind-to none -n 2 onestep-worker " +
                              folder / "job.json" + " --output " + folder / "run";
  const ShellResult killed = shell(command + " & for i in $(seq 3000); do ls " + folder / "run/checkpoints" +
                                   "/*/manifest.json >/dev/null 2>&1 && break; sleep 0.1; done; kill -9 $!; wait");
  ASSERT_TRUE(killed.output.empty()) << "ended before it could be killed: " << killed.output;
  wait_until("its ranks are gone", 30, [&] { return processes_with({folder / "job.json", "onestep-worker"}).empty(); });
  const ShellResult again = shell(command);
  ASSERT_EQ(again.exit_status, 0) << again.error;
  EXPECT_EQ(again.last_line().at("digest"), expected);
  EXPECT_EQ(again.last_line().at("attempts"), 2);
  EXPECT_THAT(again.error, HasSubstr("resumed from"));
}

TEST(WorkerAlone, AnotherConfigurationIsNotResumedAndTheKeysAreNamed) {
  const FinishedSmoke smoke = finished_smoke();
  const TempFolder folder;
  nlohmann::json spec = nlohmann::json::parse(slurp(smoke.run_folder("distill") + "/job.json"));
  spec["dmd"]["lambda_reg"] = 0.2;
  spec["ranks"] = 2;
  spit(folder / "job.json", spec.dump());
  std::filesystem::copy(smoke.run_folder("distill"), folder / "run", std::filesystem::copy_options::recursive);
  const ShellResult run = shell("onestep-worker " + folder / "job.json" + " --output " + folder / "run");
  EXPECT_EQ(run.exit_status, 4) << run.output;
  EXPECT_THAT(run.error, HasSubstr("/dmd/lambda_reg"));
  EXPECT_THAT(run.error, ::testing::Not(HasSubstr("/ranks")));
}

}  // namespace
}  // namespace onestep
