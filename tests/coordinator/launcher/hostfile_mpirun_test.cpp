#include "coordinator/launcher/hostfile_mpirun.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <cstdlib>

#include "common/error.h"
#include "common/run_folder.h"
#include "coordinator/launcher/launcher_fixture.h"
#include "coordinator/launcher/make_launcher.h"

namespace onestep {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::Not;

class HostfileMpirunTest : public LauncherTest {
 protected:
  void TearDown() override { Children().kill_marked(attempt_mark(request())); }
  std::string hostfile(const std::string& text) {
    spit(folder_ / "hosts", text);
    return folder_ / "hosts";
  }
  HostfileMpirun launcher(const std::string& text, const std::string& mpirun = "mpirun") {
    return HostfileMpirun({.worker = folder_ / "worker", .hostfile = hostfile(text), .mpirun = mpirun});
  }
};

TEST_F(HostfileMpirunTest, ReadsHostsAndTheirSlots) {
  const std::vector<HostSlots> hosts = read_hostfile(hostfile("# the cluster\nnode1 slots=4 max_slots=8\n\nnode2   # one\n"));
  ASSERT_EQ(hosts.size(), 2U);
  EXPECT_EQ(hosts[0].host, "node1");
  EXPECT_EQ(hosts[0].slots, 4);
  EXPECT_EQ(hosts[1].slots, 1);
}

TEST_F(HostfileMpirunTest, WhatIsWrongInTheFileIsNamed) {
  const auto refused = [&](const std::string& text) {
    try {
      read_hostfile(hostfile(text));
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("taken");
  };
  EXPECT_THAT(refused("node1\nnode2 slots=x\n"), HasSubstr("line 2: slots: expected 1 to 4096, found \"x\""));
  EXPECT_THAT(refused("node1 slots=0\n"), HasSubstr("found \"0\""));
  EXPECT_THAT(refused("node1\nnode1 slots=2\n"), HasSubstr("line 2: node1 is named twice"));
  EXPECT_THAT(refused("node1 cpus=2\n"), HasSubstr("found \"cpus=2\""));
  EXPECT_THAT(refused("# nothing\n"), HasSubstr("expected a host a line"));
  EXPECT_THROW(read_hostfile(folder_ / "absent"), Error);
}

TEST_F(HostfileMpirunTest, SlotsFollowTheFile) {
  HostfileMpirun mpirun = launcher("node1 slots=4\nnode2 slots=4\n");
  EXPECT_EQ(mpirun.capacity(0)->slots, 8);
  EXPECT_FALSE(mpirun.capacity(0)->oversubscribe);
  EXPECT_EQ(mpirun.capacity(3)->slots, 3);
  hostfile("node1 slots=4\n");
  EXPECT_EQ(mpirun.capacity(0)->slots, 4) << "a host taken out is given no further work";
}

TEST_F(HostfileMpirunTest, CarriesTheEnvironmentToOtherHosts) {
  const HostfileMpirun mpirun = launcher("node1 slots=2\n");
  const std::vector<std::string> command = mpirun.command(request());
  EXPECT_THAT(command, Contains("--hostfile"));
  EXPECT_THAT(command, Contains("ONESTEP_ATTEMPT_ID"));
  EXPECT_THAT(command, Contains("OMP_NUM_THREADS"));
  EXPECT_THAT(command, Not(Contains("HOME")));
  EXPECT_THAT(command, Not(Contains("--oversubscribe")));
}

TEST_F(HostfileMpirunTest, RealMpirunStartsRanksOnBothHosts) {
  // In place of ssh: the host's name is noted, and the command run here, with temporary files of its own as on a host of its own.
  const std::string agent =
      script("agent", "echo \"$1\" >> $RUN/hosts; export TMPDIR=$RUN/tmp-$1; mkdir -p $TMPDIR; shift; exec sh -c \"$*\"");
  ::setenv("OMPI_MCA_plm_rsh_agent", agent.c_str(), 1);
  ::setenv("OMPI_MCA_plm", "rsh", 1);
  script("worker", "echo $OMPI_COMM_WORLD_RANK $OMPI_COMM_WORLD_LOCAL_RANK $ONESTEP_ATTEMPT_ID >> $RUN/ranks");
  HostfileMpirun mpirun = launcher("127.0.0.11 slots=2\n127.0.0.12 slots=2\n");
  const ProcessEnd end = wait_for_end(mpirun, mpirun.launch(request(4)));
  ::unsetenv("OMPI_MCA_plm_rsh_agent");
  ::unsetenv("OMPI_MCA_plm");
  ASSERT_TRUE(end.clean) << end.description << "\n" << slurp(mpirun_log_file(run_, 3));
  const std::string ranks = slurp(run_ + "/ranks");
  EXPECT_EQ(std::count(ranks.begin(), ranks.end(), '\n'), 4) << ranks;
  EXPECT_THAT(ranks, HasSubstr("3 1 " + run_ + "#3\n"));
  EXPECT_THAT(slurp(run_ + "/hosts"), HasSubstr("127.0.0.12\n"));
}

TEST(MakeLauncher, RefusesOptionsOfAnotherKind) {
  const auto refused = [](const LauncherChoice& choice) {
    try {
      make_launcher(choice, 2);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kUsage);
      return std::string(error.what());
    }
    return std::string("taken");
  };
  LauncherChoice choice;
  EXPECT_EQ(make_launcher(choice, 2)->name(), "local");
  choice.slurm = {"partition=gpu"};
  EXPECT_THAT(refused(choice), HasSubstr("belong to --launcher slurm-step"));
  choice.kind = "slurm-batch";
  EXPECT_EQ(make_launcher(choice, 2)->name(), "slurm-batch");
  choice.hostfile = "/hosts";
  EXPECT_THAT(refused(choice), HasSubstr("belong together"));
  choice = {};
  choice.kind = "hostfile";
  EXPECT_THAT(refused(choice), HasSubstr("belong together"));
  choice.kind = "slurm-step";
  ::unsetenv("SLURM_JOB_ID");
  EXPECT_THAT(refused(choice), HasSubstr("inside an allocation"));
  ::setenv("SLURM_JOB_ID", "17", 1);
  EXPECT_EQ(make_launcher(choice, 2)->name(), "slurm-step");
  ::unsetenv("SLURM_JOB_ID");
}

TEST(MakeLauncher, SlotsAreGpusWhereThereAreAny) {
  EXPECT_EQ(default_slots(16, nullptr, {"null", "nvidiactl", "nvidia-uvm"}), 16);
  EXPECT_EQ(default_slots(16, nullptr, {"nvidia0", "nvidia1", "nvidiactl"}), 2);
  EXPECT_EQ(default_slots(16, "1", {"nvidia0", "nvidia1"}), 1);
  EXPECT_EQ(default_slots(16, "", {"nvidia0", "nvidia1"}), 16) << "hidden: the processors work";
  EXPECT_EQ(ranks_per_node_of_allocation("4", "2(x4)"), 4);
  EXPECT_EQ(ranks_per_node_of_allocation(nullptr, "2(x4)"), 2);
  EXPECT_EQ(ranks_per_node_of_allocation(nullptr, nullptr), 1);
}

}  // namespace
}  // namespace onestep
