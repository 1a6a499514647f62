// Both launchers of Slurm, with scripts in the place of Slurm's programs (tests/support/fake_slurm).
#include <gmock/gmock.h>

#include <chrono>
#include <filesystem>

#include "common/error.h"
#include "common/run_folder.h"
#include "coordinator/launcher/launcher_fixture.h"
#include "coordinator/launcher/slurm_batch.h"
#include "coordinator/launcher/slurm_room.h"
#include "coordinator/launcher/slurm_step.h"

namespace onestep {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

class SlurmTest : public LauncherTest {
 protected:
  void SetUp() override {
    LauncherTest::SetUp();
    std::filesystem::create_directories(state_);
    for (const char* name : {"srun", "sbatch", "scontrol", "scancel"}) {
      std::filesystem::create_symlink(std::string(ONESTEP_SOURCE_DIR) + "/tests/support/fake_slurm/" + name, folder_ / name);
    }
    tell("number", "17\n");
  }
  void TearDown() override {
    std::filesystem::remove(state_ + "/slow");
    Children().kill_marked(attempt_mark(request()));
  }

  // What Slurm knows from now on.
  void tell(const std::string& name, const std::string& text) { spit(state_ + "/" + name, text); }
  std::string told(const std::string& name) {
    return std::filesystem::exists(state_ + "/" + name) ? slurp(state_ + "/" + name) : "";
  }
  SlurmPrograms programs() {
    return {folder_ / "srun", folder_ / "sbatch", folder_ / "scontrol", folder_ / "scancel"};
  }
  SlurmStep step(int ranks_per_node = 2) {
    return SlurmStep({.worker = folder_ / "worker",
                      .allocation = "17",
                      .ranks_per_node = ranks_per_node,
                      .slurm = {"gpus-per-task=1"},
                      .programs = programs()});
  }
  SlurmBatch batch() {
    return SlurmBatch(
        {.worker = folder_ / "worker", .ranks_per_node = 2, .slurm = {"partition=gpu", "time=10"}, .programs = programs()});
  }
  std::string job(const std::string& state, const std::string& reason = "None", const std::string& nodes = "n1") {
    return "JobId=17 JobName=some name JobState=" + state + " Reason=" + reason + " Dependency=(null) Requeue=0 ExitCode=1:0 " +
           "Partition=main ReqNodeList=(null) ExcNodeList=(null) NodeList=" + nodes + " BatchHost=n1\n";
  }
  // Asked until Slurm's answer is in: the launchers don't wait for it.
  static std::optional<Capacity> wait_for_capacity(Launcher& launcher, int configured = 0) {
    std::optional<Capacity> capacity;
    EXPECT_TRUE(eventually([&] { return (capacity = launcher.capacity(configured)).has_value(); }));
    return capacity;
  }

  std::string state_ = folder_ / "state";
};

TEST_F(SlurmTest, OptionsAreThoseThatAnOperatorMayGive) {
  EXPECT_THAT(slurm_options({"partition=gpu", "time=1:00:00"}), ElementsAre("--partition=gpu", "--time=1:00:00"));
  for (const char* wrong : {"output=/etc/passwd", "partition", "partition=", "wrap=rm -rf /", ""}) {
    EXPECT_THROW(slurm_options({wrong}), Error) << wrong;
  }
}

TEST_F(SlurmTest, AnAttemptsNameTellsRunFoldersAndAttemptsApart) {
  LaunchRequest other = request();
  EXPECT_THAT(slurm_name(other), HasSubstr("onestep-distill-4-a3-"));
  other.run_folder += "2";
  EXPECT_NE(slurm_name(other), slurm_name(request()));
  other = request();
  other.attempt = 4;
  EXPECT_NE(slurm_name(other), slurm_name(request()));
}

TEST_F(SlurmTest, ReadsWhatScontrolPrints) {
  const SlurmJob running = parse_slurm_job(job("RUNNING", "None", "n[1-4]")).value();
  EXPECT_EQ(running.state, "RUNNING");
  EXPECT_EQ(running.reason, "");
  EXPECT_EQ(running.nodes, "n[1-4]") << "not ReqNodeList";
  EXPECT_FALSE(has_ended(running));
  EXPECT_FALSE(has_ended(parse_slurm_job(job("COMPLETING")).value()));
  for (const char* state : {"COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY"}) {
    EXPECT_TRUE(has_ended(parse_slurm_job(job(state)).value())) << state;
  }
  EXPECT_FALSE(parse_slurm_job("No jobs in the system\n"));
  std::vector<std::string> usable;
  for (const SlurmNode& node : parse_slurm_nodes("NodeName=n1 State=ALLOCATED ThreadsPerCore=1\nNodeName=n2 State=DOWN* X=1\n"
                                                 "NodeName=n3 State=IDLE*+DRAIN X=1\nNodeName=n4 State=MIXED+DRAIN X=1\nNodeName=n5 State=FAIL X=1\n"
                                                 "NodeName=n6 State=MIXED+NOT_RESPONDING X=1\n")) {
    if (node.usable) usable.push_back(node.name);
  }
  EXPECT_THAT(usable, ElementsAre("n1", "n4"));
  EXPECT_EQ(parse_slurmd_timeout("SlurmdSyslogDebug       = (null)\nSlurmdTimeout           = 300 sec\n"), 300);
  EXPECT_EQ(parse_slurmd_timeout("SlurmctldTimeout = 120 sec\n"), std::nullopt);
  EXPECT_TRUE(is_attempt_name(slurm_name(request())));
  EXPECT_FALSE(is_attempt_name("onestep-coordinator"));
}

TEST_F(SlurmTest, AStepGetsItsArgumentsOneByOneAndAnAllowedEnvironment) {
  script("worker", "printf '%s\\n' \"$@\" > $RUN/arguments");
  ::setenv("SLURM_NTASKS", "64", 1);
  ::setenv("SLURM_CONF", "/etc/slurm/slurm.conf", 1);
  SlurmStep slurm = step();
  LaunchRequest odd = request(3);
  odd.coordinator_file = "/data with $(space)/coordinator.address";
  const ProcessIdentity process = slurm.launch(odd);
  EXPECT_EQ(process.place, slurm_name(odd));
  const ProcessEnd end = wait_for_end(slurm, process);
  ::unsetenv("SLURM_NTASKS");
  ::unsetenv("SLURM_CONF");
  EXPECT_TRUE(end.clean) << end.description << slurp(mpirun_log_file(run_, 3));
  EXPECT_EQ(slurp(run_ + "/arguments"), job_file(run_) + "\n--job-id\ndistill-4\n--attempt\n3\n--coordinator\n" + odd.coordinator_file + "\n");
  EXPECT_THAT(told("srun-arguments"), AllOf(HasSubstr("--jobid=17\n"), HasSubstr("--mpi=pmix\n"), HasSubstr("--ntasks=3\n"),
                                            HasSubstr("--nodes=2\n"), HasSubstr("--exact\n"), HasSubstr("--gpus-per-task=1\n")));
  EXPECT_THAT(told("srun-environment"), AllOf(HasSubstr("SLURM_CONF=/etc/slurm/slurm.conf\n"), Not(HasSubstr("SLURM_NTASKS"))))
      << "what the batch step was given is not meant for this one";
  odd.background = true;
  EXPECT_THAT(slurm.command(odd), AllOf(Contains("--overlap"), Not(Contains("--exact"))));
}

TEST_F(SlurmTest, AStepIsAdoptedByItsNameWhenItsSrunIsGone) {
  script("worker", "touch $RUN/up; while [ ! -e $RUN/go ]; do sleep 0.02; done");
  SlurmStep first = step();
  const ProcessIdentity process = first.launch(request());
  ASSERT_TRUE(eventually([&] { return std::filesystem::exists(run_ + "/up"); }));
  {
    SlurmStep second = step();
    const ProcessIdentity found = second.find(request()).value();
    EXPECT_EQ(found.pid, process.pid);
    EXPECT_EQ(found.place, process.place);
    EXPECT_FALSE(second.poll(found));
  }
  // As on another node of the allocation: no such process here, but the step runs.
  const ProcessIdentity elsewhere{1, 1, process.place};
  SlurmStep third = step();
  for (int i = 0; i < 50; ++i) {
    EXPECT_FALSE(third.poll(elsewhere));
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  tell("away", "");
  SlurmStep fourth = step();
  for (int i = 0; i < 50; ++i) {
    EXPECT_FALSE(fourth.poll(elsewhere)) << "a controller that is away has ended nothing";
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  std::filesystem::remove(state_ + "/away");
  spit(run_ + "/go", "");
  EXPECT_TRUE(wait_for_end(first, process).clean);
  EXPECT_THAT(wait_for_end(fourth, elsewhere).description, HasSubstr("unknown"));
}

TEST_F(SlurmTest, AStepIsToldToEndThroughSlurm) {
  script("worker", "touch $RUN/up; exec sleep 600");
  SlurmStep slurm = step();
  const ProcessIdentity process = slurm.launch(request());
  ASSERT_TRUE(eventually([&] { return std::filesystem::exists(run_ + "/up"); }));
  slurm.terminate(process);
  EXPECT_EQ(told("scancel"), "--signal=TERM 17.3\n");
  EXPECT_GE(slurm.kill_all(request()), 2);
  EXPECT_THAT(told("scancel"), HasSubstr("--signal=KILL 17.3\n"));
  EXPECT_FALSE(wait_for_end(slurm, process).clean);
}

TEST_F(SlurmTest, SlotsAreTheNodesThatAreLeft) {
  tell("job-17", job("RUNNING", "None", "n[1-4]"));
  tell("nodes", "NodeName=n1 State=ALLOCATED X=1\nNodeName=n2 State=ALLOCATED X=1\nNodeName=n3 State=DOWN* X=1\n");
  SlurmStep slurm = step();
  const Capacity capacity = wait_for_capacity(slurm).value();
  EXPECT_EQ(capacity.slots, 4);
  EXPECT_FALSE(capacity.oversubscribe);
  EXPECT_EQ(told("nodes-asked"), "n[1-4]\n");
  EXPECT_EQ(wait_for_capacity(slurm, 3)->slots, 3) << "fewer if the operator says so";
  tell("job-17", job("TIMEOUT"));
  SlurmStep over = step();
  EXPECT_EQ(wait_for_capacity(over)->slots, 0);
  tell("away", "");
  SlurmStep unknown = step();
  for (int i = 0; i < 20; ++i) {
    EXPECT_FALSE(unknown.capacity(0));
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

// Before 23.02 slurmctld keeps a step for ever whose node is lost after its other nodes have ended.
TEST_F(SlurmTest, WhatAnEndedStepKeepsIsWaitedForUntilItsNodeIsKnownToBeLost) {
  const std::vector<SlurmNode> all = {{"n1"}, {"n2"}, {"n3"}, {"n4"}};
  const auto room = [&](const std::vector<SlurmNode>& nodes, double age_s) {
    return slurm_room(nodes, {{"17.3", {"n1", "n2", "n4"}, age_s}}, 300);
  };
  EXPECT_FALSE(slurm_room(all, {}, 300).wait);
  EXPECT_FALSE(slurm_room(all, {}, 300).overlap);
  EXPECT_TRUE(room(all, 1).wait) << "Slurm clears up";
  const SlurmRoom kept = room(all, 20);
  EXPECT_FALSE(kept.wait || kept.overlap);
  EXPECT_THAT(kept.nodes, ElementsAre("n3"));
  EXPECT_THAT(kept.reason, AllOf(HasSubstr("step 17.3"), HasSubstr("SlurmdTimeout")));
  for (const std::vector<SlurmNode>& without : {std::vector<SlurmNode>{{"n1"}, {"n2"}, {"n3"}, {"n4", false}}, {{"n1"}, {"n2"}, {"n3"}}}) {
    const SlurmRoom lost = room(without, 1);
    EXPECT_FALSE(lost.wait);
    EXPECT_TRUE(lost.overlap);
    EXPECT_THAT(lost.nodes, ElementsAre("n1", "n2", "n3"));
    EXPECT_THAT(lost.reason, HasSubstr("node n4 was lost"));
  }
  EXPECT_FALSE(room(all, 659).overlap);
  EXPECT_TRUE(room(all, 660).overlap) << "no node is missed, and nothing is cleared";
}

TEST_F(SlurmTest, RanksPlacedByHandShareNoSlotWhileThereIsRoom) {
  const std::vector<std::string> nodes = {"n1", "n2", "n3"};
  SlurmPlace place = place_ranks(5, 4, nodes, {{"n1", {0}}}).value();
  EXPECT_THAT(place.nodes, ElementsAre("n2", "n3"));
  EXPECT_THAT(place.slots, ElementsAre(0, 1, 2, 3));
  EXPECT_FALSE(place.shared);
  place = place_ranks(2, 4, nodes, {{"n2", {0, 2}}}).value();
  EXPECT_THAT(place.nodes, ElementsAre("n2")) << "whole nodes are kept for larger jobs";
  EXPECT_THAT(place.slots, ElementsAre(1, 3));
  place = place_ranks(9, 4, nodes, {{"n2", {0}}}).value();
  EXPECT_TRUE(place.shared);
  EXPECT_THAT(place.nodes, testing::UnorderedElementsAre("n1", "n2", "n3"));
  EXPECT_FALSE(place_ranks(13, 4, nodes, {}));
}

TEST_F(SlurmTest, TheNextAttemptWorksBesideAStepThatSlurmKeepsOfALostNode) {
  const std::string old = "StepId=17.0 UserId=0 State=RUNNING Partition=main NodeList=n[1-3] Tasks=3 Name=onestep-distill-4-a2-0123abcd Network=(null)\n";
  const std::string all = "NodeName=n1 State=MIXED X=1\nNodeName=n2 State=MIXED X=1\nNodeName=n3 State=";
  tell("job-17", job("RUNNING", "None", "n[1-3]"));
  tell("steps", old);
  tell("nodes", all + "MIXED X=1\n");
  SlurmStep clearing = step();
  for (int i = 0; i < 50; ++i) {
    EXPECT_FALSE(clearing.capacity(0)) << "Slurm clears it up, or misses a node";
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  tell("nodes", all + "DOWN* X=1\n");
  SlurmStep slurm = step();
  EXPECT_EQ(wait_for_capacity(slurm)->slots, 4);
  script("worker", "echo $ONESTEP_LOCAL_SLOTS > $RUN/slots; while [ ! -e $RUN/go ]; do sleep 0.02; done");
  const ProcessIdentity process = slurm.launch(request());
  ASSERT_TRUE(eventually([&] { return std::filesystem::exists(run_ + "/slots") && !slurp(run_ + "/slots").empty(); }));
  EXPECT_EQ(slurp(run_ + "/slots"), "0,1\n");
  EXPECT_THAT(told("srun-arguments"), AllOf(HasSubstr("--overlap\n"), HasSubstr("--nodelist=n1\n"), Not(HasSubstr("--exact")), Not(HasSubstr("--gpus-per-task"))));
  EXPECT_FALSE(slurm.poll(process));
  spit(run_ + "/go", "");
  EXPECT_TRUE(wait_for_end(slurm, process).clean);
  slurm.kill_all(request());
  tell("steps", "");
  tell("nodes", all + "MIXED X=1\n");
  SlurmStep whole = step();
  EXPECT_EQ(wait_for_capacity(whole)->slots, 6);
  EXPECT_THAT(whole.command(request()), AllOf(Contains("--exact"), Contains("--gpus-per-task=1")));
}

TEST_F(SlurmTest, AnAdoptedStepHasEndedWhenItsNodeIsLost) {
  tell("steps", "StepId=17.3 State=RUNNING NodeList=n[1-2] Name=" + slurm_name(request()) + " X=1\n");
  tell("nodes", "NodeName=n1 State=MIXED X=1\nNodeName=n2 State=DOWN* X=1\n");
  SlurmStep slurm = step();
  const ProcessEnd end = wait_for_end(slurm, ProcessIdentity{1, 1, slurm_name(request())});
  EXPECT_TRUE(end.machine_fault);
  EXPECT_THAT(end.description, HasSubstr("lost node n2"));
}

TEST_F(SlurmTest, ABatchJobIsFollowedToItsEnd) {
  tell("job-17", job("PENDING", "Resources", "(null)"));
  SlurmBatch slurm = batch();
  const ProcessIdentity process = slurm.launch(request());
  ASSERT_TRUE(eventually([&] {
    EXPECT_FALSE(slurm.poll(process));
    return !slurm.whereabouts(process).empty();
  }));
  EXPECT_EQ(slurm.whereabouts(process), "Slurm job 17 is PENDING (Resources)");
  EXPECT_TRUE(slurm.is_pending(process));
  EXPECT_THAT(told("sbatch-arguments"),
              AllOf(HasSubstr("--parsable\n"), HasSubstr("--ntasks=2\n"), HasSubstr("--nodes=1\n"), HasSubstr("--no-requeue\n"),
                    HasSubstr("--partition=gpu\n--time=10\n" + run_ + "/logs/a3.sbatch\n" + (folder_ / "worker") + "\n" + job_file(run_))));
  tell("job-17", job("FAILED", "NonZeroExitCode"));
  const ProcessEnd end = wait_for_end(slurm, process);
  EXPECT_FALSE(end.clean);
  EXPECT_EQ(end.description, "Slurm job 17 ended as FAILED (NonZeroExitCode, exit code 1:0)");
  EXPECT_FALSE(end.machine_fault);
  EXPECT_FALSE(end.refused);
  EXPECT_EQ(slurm.kill_all(request()), 0) << "it is over: there is nothing to cancel";
  EXPECT_EQ(told("scancel"), "");
}

TEST_F(SlurmTest, TheBatchScriptRunsTheWordsBehindIt) {
  SlurmBatch slurm = batch();
  LaunchRequest odd = request();
  odd.coordinator_file = "/data with $(space)/coordinator.address";
  slurm.launch(odd);
  const std::string out = folder_ / "out";
  ASSERT_EQ(std::system(("PATH=" + folder_.path() + ":$PATH sh " + run_ + "/logs/a3.sbatch " + script("words", "printf '%s\\n' \"$@\"") +
                         " '" + odd.coordinator_file + "' >" + out).c_str()),
            0);
  EXPECT_EQ(slurp(out), odd.coordinator_file + "\n");
}

TEST_F(SlurmTest, ARestartedCoordinatorFindsTheBatchJobByItsNumber) {
  tell("job-17", job("RUNNING"));
  {
    SlurmBatch first = batch();
    const ProcessIdentity process = first.launch(request());
    ASSERT_TRUE(eventually([&] { return first.poll(process), !first.whereabouts(process).empty(); }));
  }
  SlurmBatch second = batch();
  const ProcessIdentity found = second.find(request()).value();
  EXPECT_EQ(found.place, run_ + "#3");
  EXPECT_FALSE(second.poll(found));
  LaunchRequest other = request();
  other.attempt = 4;
  EXPECT_FALSE(second.find(other));
  tell("away", "");
  SlurmBatch third = batch();
  for (int i = 0; i < 50; ++i) {
    EXPECT_FALSE(third.poll(found)) << "a controller that is away has ended nothing";
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  std::filesystem::remove(state_ + "/away");
  tell("job-17", job("COMPLETED"));
  SlurmBatch fourth = batch();
  EXPECT_TRUE(wait_for_end(fourth, found).clean);
  std::filesystem::remove(state_ + "/job-17");
  SlurmBatch fifth = batch();
  const ProcessEnd forgotten = wait_for_end(fifth, found);
  EXPECT_FALSE(forgotten.clean);
  EXPECT_THAT(forgotten.description, HasSubstr("no longer knows job 17"));
}

TEST_F(SlurmTest, ASubmissionIsAdoptedBeforeSlurmHasAnswered) {
  tell("slow", "");
  SlurmBatch first = batch();
  const ProcessIdentity process = first.launch(request());
  SlurmBatch second = batch();
  const ProcessIdentity found = second.find(request()).value();
  EXPECT_EQ(found.pid, process.pid);
  EXPECT_FALSE(second.poll(found));
  tell("job-17", job("COMPLETED"));
  std::filesystem::remove(state_ + "/slow");
  EXPECT_TRUE(wait_for_end(second, found).clean);
}

TEST_F(SlurmTest, WhatSlurmRefusesIsSaidInItsWordsAndNotTriedAgain) {
  tell("refusal", "sbatch: error: invalid partition specified: gpu\nsbatch: error: Batch job submission failed: Invalid partition name specified\n");
  SlurmBatch slurm = batch();
  ProcessEnd end = wait_for_end(slurm, slurm.launch(request()));
  EXPECT_TRUE(end.refused);
  EXPECT_THAT(end.description, HasSubstr("Invalid partition name specified"));
  tell("refusal", "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)\n");
  LaunchRequest next = request();
  next.attempt = 4;
  end = wait_for_end(slurm, slurm.launch(next));
  EXPECT_FALSE(end.refused) << "it comes back";
}

TEST_F(SlurmTest, PreemptionAndLostNodesAreNotTheJobsFault) {
  SlurmBatch slurm = batch();
  tell("job-17", job("NODE_FAIL"));
  EXPECT_TRUE(wait_for_end(slurm, slurm.launch(request())).machine_fault);
  tell("job-17", job("TIMEOUT"));
  SlurmBatch again = batch();
  EXPECT_FALSE(wait_for_end(again, again.launch(request())).machine_fault);
}

TEST_F(SlurmTest, ABatchJobIsCancelledOrAskedToSave) {
  tell("job-17", job("PENDING", "Priority"));
  SlurmBatch slurm = batch();
  ProcessIdentity process = slurm.launch(request());
  ASSERT_TRUE(eventually([&] { return slurm.poll(process), slurm.is_pending(process); }));
  slurm.terminate(process);
  EXPECT_EQ(told("scancel"), "17\n") << "nothing runs that could save";
  tell("job-17", job("RUNNING"));
  SlurmBatch second = batch();
  ASSERT_TRUE(eventually([&] { return second.poll(process), !second.whereabouts(process).empty(); }));
  second.terminate(process);
  EXPECT_EQ(told("scancel"), "17\n--signal=TERM 17\n");
  EXPECT_EQ(second.kill_all(request()), 1);
  EXPECT_EQ(told("scancel"), "17\n--signal=TERM 17\n17\n");
}

}  // namespace
}  // namespace onestep
