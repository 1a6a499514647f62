#include "coordinator/launcher/local_mpirun.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <filesystem>

#include "common/error.h"
#include "common/run_folder.h"
#include "coordinator/launcher/launcher_fixture.h"

namespace onestep {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

bool is_running(std::int64_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  const std::size_t name_end = text.rfind(')');
  return name_end != std::string::npos && text.at(name_end + 2) != 'Z';
}

// A shell script stands in for mpirun; it finds the run folder in its arguments: $9 is the job
// file.
class LocalMpirunTest : public LauncherTest {
 protected:
  void TearDown() override { launcher("exit 0").kill_all(request()); }

  LocalMpirun launcher(const std::string& body, int cores = 2) {
    LocalMpirunOptions options;
    options.worker = folder_ / "worker";
    options.mpirun = script("mpirun", body);
    options.cores = cores;
    return LocalMpirun(options);
  }
};

TEST_F(LocalMpirunTest, GivesTheArgumentsOneByOneAndNoShell) {
  LocalMpirun mpirun = launcher("printf '%s\\n' \"$@\" > $RUN/arguments");
  LaunchRequest odd = request();
  odd.coordinator_file = "/data with $(space)/coordinator.address";
  const ProcessEnd end = wait_for_end(mpirun, mpirun.launch(odd));
  EXPECT_TRUE(end.clean) << end.description;
  EXPECT_EQ(slurp(run_ + "/arguments"),
            "--allow-run-as-root\n--oversubscribe\n--bind-to\nnone\n-n\n2\n" +
                (folder_ / "worker") + "\n" + job_file(run_) +
                "\n--job-id\ndistill-4\n--attempt\n3\n--coordinator\n" + odd.coordinator_file +
                "\n");
}

TEST_F(LocalMpirunTest, SaysHowItEnded) {
  LocalMpirun mpirun = launcher("exit 3");
  ProcessEnd end = wait_for_end(mpirun, mpirun.launch(request()));
  EXPECT_FALSE(end.clean);
  EXPECT_EQ(end.description, "mpirun ended with status 3");

  LocalMpirun second = launcher("kill -9 $$");
  const ProcessIdentity killed = second.launch(request());
  end = wait_for_end(second, killed);
  EXPECT_FALSE(end.clean);
  EXPECT_THAT(end.description, HasSubstr("signal 9"));
  EXPECT_TRUE(second.poll(killed)) << "asked again, it says so again";
}

TEST_F(LocalMpirunTest, LeadsItsOwnSessionWithALogFileAndNoInput) {
  LocalMpirun mpirun = launcher(
      "ps -o sid= -p $$ > $RUN/session; echo hello; echo trouble >&2; read line || echo no input");
  const ProcessIdentity process = mpirun.launch(request());
  wait_for_end(mpirun, process);
  EXPECT_EQ(std::stoll(slurp(run_ + "/session")), process.pid);
  EXPECT_EQ(slurp(mpirun_log_file(run_, 3)), "hello\ntrouble\nno input\n");
}

TEST_F(LocalMpirunTest, InheritsNoDescriptorButTheThreeStandardOnes) {
  const int extra = ::open("/dev/null", 0);  // without close-on-exec, as a library may open it
  LocalMpirun mpirun = launcher("ls /proc/self/fd | sort -n > $RUN/descriptors");
  wait_for_end(mpirun, mpirun.launch(request()));
  ::close(extra);
  // 3 is the folder that ls itself reads.
  EXPECT_EQ(slurp(run_ + "/descriptors"), "0\n1\n2\n3\n");
}

TEST_F(LocalMpirunTest, PassesAnAllowedEnvironmentOnly) {
  EXPECT_THAT(allowed_environment({"PATH=/bin", "SECRET=1", "HOME=/root", "ONESTEP_LOG=json",
                                   "OMPI_MCA_btl=self", "OMPI_COMM_WORLD_RANK=3", "LANGUAGE=de",
                                   "ONESTEP_ATTEMPT_ID=other", "ONESTEP_TOKEN=s", "ONESTEP_TOKEN_FILE=f"}),
              ElementsAre("PATH=/bin", "HOME=/root", "ONESTEP_LOG=json", "OMPI_MCA_btl=self"));

  ::setenv("SECRET", "1", 1);
  LocalMpirun mpirun = launcher("env > $RUN/environment", 2);
  wait_for_end(mpirun, mpirun.launch(request(2)));
  const std::string full = slurp(run_ + "/environment");
  EXPECT_THAT(full, Not(HasSubstr("SECRET")));
  EXPECT_THAT(full, HasSubstr("OMP_NUM_THREADS=1\n"));
  EXPECT_THAT(full, HasSubstr("ONESTEP_ATTEMPT_ID=" + run_ + "#3\n"));
  EXPECT_THAT(full, Not(HasSubstr("mpi_yield_when_idle")));

  wait_for_end(mpirun, mpirun.launch(request(4)));
  EXPECT_THAT(slurp(run_ + "/environment"), HasSubstr("OMPI_MCA_mpi_yield_when_idle=1\n"))
      << "4 ranks on 2 cores";
}

TEST_F(LocalMpirunTest, EvaluationsRunAtLowPriority) {
  LocalMpirun mpirun = launcher("nice > $RUN/nice");
  const int own = ::getpriority(PRIO_PROCESS, 0);
  wait_for_end(mpirun, mpirun.launch(request()));
  EXPECT_EQ(std::stoi(slurp(run_ + "/nice")), own);
  LaunchRequest background = request();
  background.background = true;
  wait_for_end(mpirun, mpirun.launch(background));
  EXPECT_EQ(std::stoi(slurp(run_ + "/nice")), 10);
}

TEST_F(LocalMpirunTest, MissingProgramsAreNamed) {
  LocalMpirunOptions options;
  options.mpirun = folder_ / "absent-mpirun";
  options.worker = folder_ / "worker";
  try {
    LocalMpirun(options).launch(request());
    FAIL() << "launched";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kNotFound);
    EXPECT_THAT(error.what(), HasSubstr("absent-mpirun"));
  }
  options.mpirun = script("mpirun", "exit 0");
  options.worker = folder_ / "absent-worker";
  EXPECT_THROW(LocalMpirun(options).launch(request()), Error);
}

TEST_F(LocalMpirunTest, AnotherLauncherFindsAndWatchesWhatRuns) {
  // As a coordinator that was killed and started again: the process is not its child.
  LocalMpirun first =
      launcher("trap '' HUP; touch $RUN/up; while [ ! -e $RUN/go ]; do sleep 0.02; done");
  const ProcessIdentity process = first.launch(request());
  ASSERT_TRUE(eventually([&] { return std::filesystem::exists(run_ + "/up"); }));
  LocalMpirunOptions options;
  options.worker = folder_ / "worker";
  LocalMpirun second(options);
  const std::optional<ProcessIdentity> found = second.find(request());
  ASSERT_TRUE(found);
  EXPECT_EQ(found->pid, process.pid);
  EXPECT_EQ(found->start_time, process.start_time);
  EXPECT_FALSE(second.poll(*found));
  LaunchRequest other = request();
  other.attempt = 4;
  EXPECT_FALSE(second.find(other));

  ProcessIdentity reused = *found;
  reused.start_time -= 1;
  EXPECT_TRUE(second.poll(reused)) << "the same number, another process";

  spit(run_ + "/go", "");
  const ProcessEnd end = wait_for_end(second, *found);
  EXPECT_FALSE(end.clean);
  EXPECT_THAT(end.description, HasSubstr("unknown"));
}

TEST_F(LocalMpirunTest, RanksLeftBehindAreKilledWhateverTheirGroupAndSession) {
  LocalMpirun mpirun = launcher(
      "sleep 600 & setsid sleep 600 & echo $! > $RUN/rank\n"
      "while ! grep -q sleep /proc/$(cat $RUN/rank)/comm; do sleep 0.01; done\n"
      "touch $RUN/up; kill -9 $$");
  const ProcessIdentity process = mpirun.launch(request());
  wait_for_end(mpirun, process);
  const std::int64_t rank = std::stoll(slurp(run_ + "/rank"));
  ASSERT_TRUE(is_running(rank)) << "nothing was left behind, so nothing is tested";
  EXPECT_GE(mpirun.kill_all(request()), 2);
  EXPECT_FALSE(is_running(rank));
  EXPECT_EQ(mpirun.kill_all(request()), 0);
}

TEST_F(LocalMpirunTest, TerminateAsksPolitely) {
  LocalMpirun mpirun = launcher(
      "trap 'echo saved > $RUN/saved; exit 9' TERM; touch $RUN/up; while true; do sleep 0.02; "
      "done");
  const ProcessIdentity process = mpirun.launch(request());
  ASSERT_TRUE(eventually([&] { return std::filesystem::exists(run_ + "/up"); }));
  mpirun.terminate(process);
  EXPECT_EQ(wait_for_end(mpirun, process).description, "mpirun ended with status 9");
  EXPECT_TRUE(std::filesystem::exists(run_ + "/saved"));
  mpirun.terminate(process);  // gone: nothing happens, whoever has that number now
}

TEST_F(LocalMpirunTest, RealMpirunAndItsRanksAreFoundByTheMark) {
  // mpirun gives each rank a process group of its own but its environment.
  script("worker", "echo $$ > $RUN/rank-$OMPI_COMM_WORLD_RANK; exec sleep 600");
  LocalMpirunOptions options;
  options.worker = folder_ / "worker";
  options.cores = 2;
  LocalMpirun mpirun(options);
  const ProcessIdentity process = mpirun.launch(request());
  const auto rank_file = [&](int rank) { return run_ + "/rank-" + std::to_string(rank); };
  ASSERT_TRUE(eventually([&] {
    return std::filesystem::exists(rank_file(0)) && std::filesystem::exists(rank_file(1)) &&
           !slurp(rank_file(0)).empty() && !slurp(rank_file(1)).empty();
  })) << slurp(mpirun_log_file(run_, 3));
  EXPECT_FALSE(mpirun.poll(process));
  EXPECT_EQ(mpirun.find(request()).value().pid, process.pid);
  EXPECT_GE(mpirun.kill_all(request()), 3);
  EXPECT_FALSE(is_running(std::stoll(slurp(rank_file(0)))));
  EXPECT_FALSE(is_running(std::stoll(slurp(rank_file(1)))));
  EXPECT_FALSE(wait_for_end(mpirun, process).clean);
}

}  // namespace
}  // namespace onestep
