// A Slurm cluster of four nodes on this machine: whatever happens to it, a job ends in the bits of an undisturbed run.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <signal.h>

#include <cstdlib>
#include <filesystem>
#include <set>
#include <sstream>

#include "integration/finished_smoke.h"
#include "integration/service.h"
#include "support/files.h"
#include "support/temp_folder.h"

namespace onestep {
namespace {

using ::testing::HasSubstr;

class Slurm : public ::testing::Test {
 protected:
  void SetUp() override {
    const ShellResult started = cluster("start");
    if (started.exit_status == 77) GTEST_SKIP() << started.output;
    ASSERT_EQ(started.exit_status, 0) << started.output << started.error;
    started_ = true;
    // "export A=b C=d" a line.
    std::istringstream words(slurp(folder_ / "cluster/environment"));
    for (std::string word; words >> word;) {
      const std::size_t equals = word.find('=');
      if (equals != std::string::npos) ::setenv(word.substr(0, equals).c_str(), word.substr(equals + 1).c_str(), 1);
    }
  }
  void TearDown() override {
    service_.reset();
    if (started_) cluster("stop");
    if (HasFailure() && started_) {
      std::cerr << shell("tail -n 30 " + folder_ / "cluster/slurmctld.log").output << shell("tail -n 40 " + folder_ / "data.log").output;
    }
  }

  ShellResult cluster(const std::string& command, const std::string& node = "") {
    return shell(std::string(ONESTEP_SOURCE_DIR) + "/tests/slurm/cluster.sh " + command + " " + folder_ / "cluster" + " " + node);
  }
  // A coordinator inside an allocation of all nodes, as a step of a batch script would be.
  void start_in_allocation(int ranks_per_node, const std::vector<std::string>& more = {}) {
    const ShellResult made = shell("salloc --no-shell --nodes=4 --no-kill --gpus-per-node=2 --ntasks-per-node=" +
                                   std::to_string(ranks_per_node) + " 2>&1");
    const std::string marker = "Granted job allocation ";
    const std::size_t at = made.output.find(marker);
    ASSERT_NE(at, std::string::npos) << made.output;
    ::setenv("SLURM_JOB_ID", std::to_string(std::stoi(made.output.substr(at + marker.size()))).c_str(), 1);
    ServiceOptions options;
    options.arguments = {"--launcher", "slurm-step", "--ranks-per-node", std::to_string(ranks_per_node)};
    options.arguments.insert(options.arguments.end(), more.begin(), more.end());
    service_ = std::make_unique<Service>(folder_ / "data", options);
    ::unsetenv("SLURM_JOB_ID");
  }
  void start_on_login_node(const std::vector<std::string>& slurm = {}) {
    ServiceOptions options;
    options.arguments = {"--launcher", "slurm-batch"};
    for (const std::string& option : slurm) options.arguments.insert(options.arguments.end(), {"--slurm", option});
    service_ = std::make_unique<Service>(folder_ / "data", options);
  }
  std::string start_student(int ranks) {
    const std::string id = service_->submit(long_student(smoke_, ranks)).at(0);
    service_->wait_for_checkpoint(id);
    return id;
  }
  nlohmann::json expect_undisturbed_bits(const std::string& id) {
    const nlohmann::json job = service_->wait_for(id, {"succeeded"});
    EXPECT_EQ(job.at("digest"), expected_);
    return job;
  }
  // The names of the steps of coordinators' attempts that run.
  static std::string steps() { return shell("squeue --steps --noheader --format=%j | grep onestep- || true").output; }
  void command(const std::string& line) {
    const ShellResult run = shell(line + " --url " + service_->url());
    EXPECT_EQ(run.exit_status, 0) << run.error;
  }

  const FinishedSmoke smoke_ = finished_smoke();
  const std::string expected_ = long_student_digest(smoke_);
  const TempFolder folder_;
  bool started_ = false;
  std::unique_ptr<Service> service_;
};

// The node and the devices of each rank of the job: "n1:0".
std::multiset<std::string> places_of_ranks(const Service& service, const std::string& id) {
  std::multiset<std::string> places;
  for (const pid_t rank : service.ranks(id)) {
    std::istringstream variables(slurp("/proc/" + std::to_string(rank) + "/environ"));
    std::string node, devices;
    for (std::string variable; std::getline(variables, variable, '\0');) {
      if (variable.starts_with("SLURMD_NODENAME=")) node = variable.substr(16);
      if (variable.starts_with("CUDA_VISIBLE_DEVICES=")) devices = variable.substr(21);
    }
    if (!node.empty()) places.insert(node + ":" + devices);  // else it is srun
  }
  return places;
}

TEST_F(Slurm, EachRankHasAGpuOfItsOwnAndAControllerThatIsKilledIsNotNoticed) {
  start_in_allocation(2, {"--slurm", "gpus-per-task=1"});
  const std::string id = start_student(4);
  EXPECT_THAT(places_of_ranks(*service_, id), testing::ElementsAre("n1:0", "n1:1", "n2:0", "n2:1"));
  cluster("kill-controller");
  const auto iteration = [&] { return service_->job(id).at("progress").at("iteration").get<int>(); };
  const int before = iteration();
  wait_until("ranks go on without the controller", 60, [&] { return iteration() >= before + 10; });
  EXPECT_EQ(service_->state(id), "running");
  ASSERT_EQ(cluster("start-controller").exit_status, 0);
  EXPECT_EQ(expect_undisturbed_bits(id).at("attempts").size(), 1U);
  EXPECT_EQ(steps(), "");
}

TEST_F(Slurm, ALostNodeIsReplacedByFewerRanksInTheSameAllocation) {
  start_in_allocation(1);
  const std::string id = start_student(4);
  ASSERT_EQ(cluster("kill-node", "n4").exit_status, 0);
  // They end over their lost neighbour before Slurm misses it, as they always do with its default of 300 s.
  for (const pid_t process : service_->ranks(id)) {
    const bool is_srun = slurp("/proc/" + std::to_string(process) + "/environ").find("SLURMD_NODENAME=") == std::string::npos;
    if (!is_srun) ::kill(process, SIGKILL);
  }
  const nlohmann::json job = expect_undisturbed_bits(id);
  EXPECT_GE(job.at("attempts").size(), 2U);
  EXPECT_EQ(job.at("ranks"), 2) << "three nodes are left: two ranks are the next legal number";
}

TEST_F(Slurm, AKilledCoordinatorAdoptsItsStepWithoutItsSrunThenItIsCancelledAndResumed) {
  start_in_allocation(1);
  const std::string id = start_student(2);
  service_->kill_hard();
  const std::string before = steps();
  EXPECT_THAT(before, HasSubstr("onestep-" + id + "-a1-"));
  const std::vector<pid_t> sruns = processes_with({"srun", "--job-name=" + before.substr(0, before.find('\n'))});
  ASSERT_FALSE(sruns.empty());
  for (const pid_t srun : sruns) ::kill(srun, SIGKILL);
  ::setenv("SLURM_JOB_ID", "1", 1);
  service_->start();
  ::unsetenv("SLURM_JOB_ID");
  EXPECT_EQ(steps(), before);
  service_->wait_for(id, {"running"}, 30);
  command("onestep cancel " + id);
  service_->wait_for(id, {"cancelled"}, 60);
  EXPECT_EQ(steps(), "");
  command("onestep resume " + id);
  EXPECT_EQ(expect_undisturbed_bits(id).at("attempts").size(), 2U);
}

TEST_F(Slurm, ABatchJobOutlivesTheCoordinatorAndIsSubmittedAgainWhenItsNodeIsLost) {
  start_on_login_node();
  const std::string id = start_student(2);
  service_->kill_hard();
  service_->start();
  EXPECT_EQ(service_->wait_for(id, {"running"}, 30).at("attempts").size(), 1U);
  const std::string node = shell("squeue --noheader --format=%N | tr -d '\\n' | sed 's/\\[\\(.\\).*/\\1/'").output;
  ASSERT_EQ(cluster("kill-node", node).exit_status, 0) << node;
  EXPECT_EQ(expect_undisturbed_bits(id).at("attempts").size(), 2U);
  EXPECT_THAT(shell("scontrol --oneliner show job 2").output, HasSubstr("JobState=COMPLETED"));
}

TEST_F(Slurm, ABatchJobThatWaitsSaysWhyAndIsCancelledAtOnce) {
  ASSERT_EQ(shell("salloc --no-shell --nodes=4 --exclusive").exit_status, 0);
  start_on_login_node();
  const std::string id = service_->submit(long_student(smoke_, 2)).at(0);
  wait_until("the queue's reason", 30, [&] {
    return service_->job(id).at("reason").get<std::string>().find("Slurm job 2 is PENDING (Resources)") != std::string::npos;
  });
  command("onestep cancel " + id);
  service_->wait_for(id, {"cancelled"}, 15);
  ASSERT_EQ(shell("scancel 1").exit_status, 0);
  command("onestep resume " + id);
  EXPECT_EQ(expect_undisturbed_bits(id).at("attempts").size(), 2U);
}

TEST_F(Slurm, WhatSlurmRefusesIsSaidInItsOwnWords) {
  start_on_login_node({"partition=absent"});
  const std::string id = service_->submit(long_student(smoke_, 2)).at(0);
  const nlohmann::json job = service_->wait_for(id, {"failed"}, 30);
  EXPECT_THAT(job.at("reason").get<std::string>(), HasSubstr("Invalid partition name specified"));
  EXPECT_EQ(job.at("attempts").size(), 1U);
}

TEST_F(Slurm, TheDoctorLooksAtEveryNode) {
  const std::string doctor = "onestep doctor --listen 127.0.0.1:0 --free 0.1 --launcher slurm-batch --ranks 4 --data " + folder_ / "data --json";
  const ShellResult good = shell(doctor + " --slurm partition=main");
  EXPECT_EQ(good.exit_status, 0) << good.output;
  EXPECT_EQ(good.last_line().at("failed"), 0);
  const ShellResult bad = shell(doctor + " --slurm partition=absent");
  EXPECT_EQ(bad.exit_status, 8);
  EXPECT_THAT(bad.output, HasSubstr("check the partition"));
}

// ---- slurm/distill_sd.sh ----

class DistillScript : public Slurm {
 protected:
  void SetUp() override {
    Slurm::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    data_ = folder_ / "shared";
  }
  // Submits the script with these options and variables; its job's number.
  std::string sbatch(const std::string& options, const std::string& variables = "", const std::string& config = "") {
    const ShellResult run =
        shell("cd " + folder_.path() + " && ONESTEP_DATA=" + data_ + " ONESTEP_BIN=" + program("") + " CONFIG=" +
              (config.empty() ? folder_ / "pipeline.json" : config) + " " + variables + " sbatch --parsable --output=" +
              folder_ / "slurm.log " + options + " " + std::string(ONESTEP_SOURCE_DIR) + "/slurm/distill_sd.sh");
    EXPECT_EQ(run.exit_status, 0) << run.error;
    return run.output.substr(0, run.output.find('\n'));
  }
  std::string wait_for_end(const std::string& job, double limit_s) {
    std::string state;
    wait_until("the end of Slurm job " + job, limit_s, [&] {
      state = shell("scontrol --oneliner show job " + job + " | grep -o ' JobState=[A-Z_]*' | cut -d= -f2 | tr -d '\\n'").output;
      return state == "COMPLETED" || state == "FAILED" || state == "CANCELLED" || state == "TIMEOUT";
    });
    return state;
  }
  std::string log() { return slurp(folder_ / "slurm.log"); }

  std::string data_;
};

TEST_F(DistillScript, SavesBeforeTheTimeLimitRequeuesItselfAndGoesOn) {
  nlohmann::json student = long_student(smoke_, 4);
  spit(folder_ / "pipeline.json", student.dump());
  const std::string job = sbatch("--nodes=4 --ntasks-per-node=1 --time=1 --signal=B:USR1@20", "SAVE_TIME=20");
  wait_until("a first checkpoint", 90, [&] { return !shell("ls -d " + data_ + "/jobs/*/checkpoints/*/manifest.json").output.empty(); });
  // The moment of the signal is Slurm's affair; here it comes when there is something to save.
  ASSERT_EQ(shell("scancel --batch --signal=USR1 " + job).exit_status, 0);
  EXPECT_EQ(wait_for_end(job, 150), "COMPLETED") << log();
  EXPECT_THAT(log(), HasSubstr("start 2, on"));
  EXPECT_THAT(log(), HasSubstr("goes on with"));
  EXPECT_THAT(shell("cat " + data_ + "/jobs/*/outcome.json").output, HasSubstr(expected_));
}

TEST_F(DistillScript, RefusesPlainlyAndChangesNothing) {
  spit(folder_ / "pipeline.json", long_student(smoke_, 4).dump());
  const auto refused = [&](const std::string& options, const std::string& variables, const std::string& config = "") {
    std::filesystem::remove(folder_ / "slurm.log");
    const std::string job = sbatch("--nodes=2 --ntasks-per-node=1 " + options, variables, config);
    EXPECT_EQ(wait_for_end(job, 30), "FAILED");
    EXPECT_FALSE(std::filesystem::exists(data_ + "/coordinator.sqlite"));
    return log();
  };
  EXPECT_THAT(refused("", "", "configs/absent.json"), HasSubstr("refused: CONFIG: configs/absent.json: no such file"));
  EXPECT_THAT(refused("", "ONESTEP_BIN=/nowhere"), HasSubstr("refused: ONESTEP_BIN: /nowhere has no onestep program"));
  EXPECT_THAT(refused("--time=3", ""), HasSubstr("refused: time limit 00:03:00: too short to work and save"));
  const std::string local = folder_ / "local";
  std::filesystem::create_directories(local);
  ASSERT_EQ(cluster("kill-node", "n2").exit_status, 0);
  ASSERT_EQ(cluster("start-node", "n2 " + local).exit_status, 0);
  EXPECT_THAT(refused("--nodelist=n[1-2]", "ONESTEP_DATA=" + local), HasSubstr("is not shared: not seen from n2"));
  const ShellResult partition = shell("sbatch --partition=absent " + std::string(ONESTEP_SOURCE_DIR) + "/slurm/distill_sd.sh");
  EXPECT_NE(partition.exit_status, 0);
  EXPECT_THAT(partition.error, HasSubstr("Invalid partition name specified"));
}

}  // namespace
}  // namespace onestep
