#include "cli/doctor.h"

#include <gmock/gmock.h>

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "common/error.h"
#include "support/temp_folder.h"

namespace onestep {
namespace {

using testing::HasSubstr;

const DoctorCheck& named(const std::vector<DoctorCheck>& checks, const std::string& name) {
  const auto found = std::find_if(checks.begin(), checks.end(), [&](const DoctorCheck& check) { return check.name == name; });
  if (found == checks.end()) throw std::runtime_error("no check " + name);
  return *found;
}

TEST(Doctor, ReadsTheRanksLinesAmongOthers) {
  const auto probes = parse_probes("mpirun says hello\nprobe 1 node2 no 1700000009 onestep-worker 0.1.0 (abc)\nprobe x\n"
                                   "probe 0 node1 yes 1700000000 sh: 1: not found\n");
  ASSERT_EQ(probes.size(), 2U);
  EXPECT_EQ(probes[0].rank, 1);
  EXPECT_EQ(probes[0].host, "node2");
  EXPECT_FALSE(probes[0].sees_folder);
  EXPECT_EQ(probes[0].version, "onestep-worker 0.1.0 (abc)");
  EXPECT_TRUE(probes[1].sees_folder);
}

TEST(Doctor, NamesTheHostsThatDiffer) {
  const std::vector<RankProbe> good = {{0, "node1", true, 100, "onestep-worker 1"}, {1, "node2", true, 103, "onestep-worker 1"}};
  for (const DoctorCheck& check : judge_probes(good, 2, "1")) EXPECT_EQ(check.state, CheckState::kOk) << check.name << check.found;

  std::vector<RankProbe> bad = good;
  bad[1].sees_folder = false;
  bad[1].clock_s = 200;
  bad[1].version = "onestep-worker 2";
  const std::vector<DoctorCheck> checks = judge_probes(bad, 3, "1");
  EXPECT_EQ(named(checks, "ranks").state, CheckState::kFailed);
  EXPECT_THAT(named(checks, "ranks").found, HasSubstr("2 of 3"));
  EXPECT_EQ(named(checks, "shared folder").found, "not seen from node2");
  EXPECT_EQ(named(checks, "shared folder").state, CheckState::kFailed);
  EXPECT_THAT(named(checks, "worker on all hosts").found, HasSubstr("node2"));
  EXPECT_EQ(named(checks, "clocks").state, CheckState::kWarning);
  EXPECT_FALSE(named(checks, "clocks").remedy.empty());
}

TEST(Doctor, AnFsyncThatIsTooFastIsNotBelieved) {
  EXPECT_EQ(judge_fsync({0.002, 0.003, 0.002}, "ext4").state, CheckState::kOk);
  EXPECT_THAT(judge_fsync({1e-6, 2e-6, 1e-6}, "ext4").found, HasSubstr("too fast"));
  EXPECT_THAT(judge_fsync({0.002}, "tmpfs").found, HasSubstr("memory"));
  EXPECT_EQ(judge_fsync({0.5, 0.5, 0.5}, "nfs").state, CheckState::kWarning);
  EXPECT_EQ(judge_fsync({}, "ext4").state, CheckState::kFailed);
}

TEST(Doctor, FreeSpace) {
  EXPECT_EQ(judge_space(20, 10).state, CheckState::kOk);
  EXPECT_EQ(judge_space(5, 10).state, CheckState::kWarning);
  EXPECT_EQ(judge_space(0.5, 10).state, CheckState::kFailed);
}

TEST(Doctor, APortInUseAndAFolderThatIsNotThereYet) {
  const TempFolder folder;
  const int socket = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(::bind(socket, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  ASSERT_EQ(::listen(socket, 1), 0);
  socklen_t size = sizeof address;
  ::getsockname(socket, reinterpret_cast<sockaddr*>(&address), &size);
  DoctorOptions options;
  options.data = folder / "not/there/yet";
  options.listen = "127.0.0.1:" + std::to_string(ntohs(address.sin_port));
  options.ranks = 1;
  const std::vector<DoctorCheck> checks = examine(options);
  ::close(socket);
  EXPECT_EQ(named(checks, "port").state, CheckState::kFailed);
  EXPECT_EQ(named(checks, "data folder").state, CheckState::kOk);
  EXPECT_THAT(named(checks, "data folder").found, HasSubstr(folder.path()));
  EXPECT_TRUE(std::filesystem::is_empty(folder.path())) << "a doctor leaves nothing behind";
  EXPECT_EQ(named(checks, "Slurm").state, CheckState::kSkipped);
  options.listen = "nonsense";
  EXPECT_THROW(examine(options), Error);
  options.launcher = "hostfile";
  EXPECT_THROW(examine(options), Error);
}

}  // namespace
}  // namespace onestep
