// Two hosts, as network namespaces: the coordinator and one rank on the first, another rank on the second, whose clock is wrong.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sched.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <iostream>
#include <memory>

#include "integration/finished_smoke.h"
#include "integration/service.h"
#include "support/files.h"
#include "support/temp_folder.h"

namespace onestep {
namespace {

using ::testing::HasSubstr;

constexpr const char* kFirstHost = "10.77.0.1";
constexpr const char* kSecondHost = "10.77.0.2";

class Remote : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root";
    if (shell("command -v faketime || apt-get -o DPkg::Lock::Timeout=600 install -y --no-install-recommends faketime").exit_status != 0) {
      GTEST_SKIP() << "faketime is missing and can't be installed";
    }
    smoke_ = finished_smoke();
    expected_ = long_student_digest(smoke_);
    // From here on this process, and the coordinator that it starts, are the first host.
    if (::unshare(CLONE_NEWNET) != 0) GTEST_SKIP() << "no network namespaces here";
    ASSERT_EQ(shell("ip link set lo up && ip netns add " + name_ + " && ip link add near type veth peer name far netns " + name_ +
                    " && ip address add " + kFirstHost + "/24 dev near && ip link set near up && ip netns exec " + name_ +
                    " sh -c 'ip link set lo up && ip address add " + kSecondHost + "/24 dev far && ip link set far up'")
                  .exit_status,
              0);
    made_ = true;
  }
  void TearDown() override {
    service_.reset();
    if (HasFailure()) std::cerr << shell("tail -n 20 " + folder_ / "data.log" + "; head -n 20 " + folder_ / "data" + "/jobs/*/logs/*").output;
    if (made_) shell("ip netns del " + name_);
  }

  // `offset`: how far the second host's clock is from this one's, such as "+2h".
  void start(const std::string& offset) {
    const std::string agent = folder_ / "agent";
    // In place of ssh.
    spit(agent, "#!/bin/bash\necho \"$1\" >> " + folder_ / "reached" + "\nshift\nexec ip netns exec " + name_ +
                    " unshare --uts sh -c 'hostname host-b; FAKETIME_DONT_FAKE_MONOTONIC=1 exec faketime -f \"$1\" sh -c \"$2\"' sh '" +
                    offset + "' \"$*\"\n");
    ::chmod(agent.c_str(), 0755);
    spit(folder_ / "hosts", std::string(kFirstHost) + " slots=1\n" + kSecondHost + " slots=1\n");
    const std::pair<const char*, std::string> settings[] = {
        {"plm", "rsh"}, {"plm_rsh_agent", agent}, {"pml", "ob1"}, {"btl", "tcp,self"},
        {"btl_tcp_if_include", "10.77.0.0/24"}, {"oob_tcp_if_include", "10.77.0.0/24"}};
    for (const auto& [key, value] : settings) ::setenv(("OMPI_MCA_" + std::string(key)).c_str(), value.c_str(), 1);
    ServiceOptions options;
    options.arguments = {"--launcher", "hostfile", "--hostfile", folder_ / "hosts", "--telemetry", kFirstHost};
    service_ = std::make_unique<Service>(folder_ / "data", options);
  }
  // Once both ranks have said hello.
  std::vector<std::string> hosts_of_ranks(const std::string& id) {
    std::vector<std::string> hosts;
    wait_until("both ranks to report", 60, [&] {
      hosts.clear();
      const nlohmann::json ranks = service_->client().get("/api/v1/jobs/" + id + "/workers");
      for (const nlohmann::json& rank : ranks.at("items")) hosts.push_back(rank.at("host"));
      return hosts.size() == 2;
    });
    return hosts;
  }
  std::string address() { return nlohmann::json::parse(slurp(folder_ / "data" + "/coordinator.address")).at("telemetry"); }

  const std::string name_ = "onestep-" + std::to_string(::getpid());
  const TempFolder folder_;
  FinishedSmoke smoke_;
  std::string expected_;
  bool made_ = false;
  std::unique_ptr<Service> service_;
};

TEST_F(Remote, RanksOnTwoHostsReportOverTlsWhateverTheClocksSay) {
  start("+2h");
  EXPECT_THAT(address(), HasSubstr(std::string(kFirstHost) + ":"));
  const std::string id = service_->submit(long_student(smoke_, 2)).at(0);
  service_->wait_for_checkpoint(id);
  EXPECT_THAT(hosts_of_ranks(id), testing::Contains("host-b"));
  EXPECT_THAT(slurp(folder_ / "reached"), HasSubstr(kSecondHost));
  int num_with_a_wrong_clock = 0;
  for (const pid_t rank : service_->ranks(id)) {
    if (slurp("/proc/" + std::to_string(rank) + "/environ").find("FAKETIME=+2h") != std::string::npos) ++num_with_a_wrong_clock;
  }
  EXPECT_EQ(num_with_a_wrong_clock, 1) << "all clocks are the same: nothing is tested";
  // A coordinator that was killed is found again by the address file on the shared folder.
  service_->kill_hard();
  service_->start();
  const nlohmann::json job = service_->wait_for(id, {"succeeded"});
  EXPECT_EQ(job.at("digest"), expected_);
  EXPECT_EQ(job.at("attempts").size(), 1U);
}

TEST_F(Remote, AClockInThePastAndAConnectionInTheClear) {
  start("-400d");
  const std::string id = service_->submit(long_student(smoke_, 2)).at(0);
  service_->wait_for_checkpoint(id);
  EXPECT_THAT(hosts_of_ranks(id), testing::Contains("host-b"));
  const std::string at = address();
  const std::string port = at.substr(at.rfind(':') + 1);
  const ShellResult clear = shell("ip netns exec " + name_ + " timeout 10 bash -c 'exec 3<>/dev/tcp/" + kFirstHost + "/" + port +
                                  " && printf \"\\x15\\x00\\x00\\x00\\x01\\x01hello, in the clear\" >&3 && cat <&3 | head -c 100 | wc -c'");
  EXPECT_LT(std::stoi("0" + clear.output), 8) << "nothing but a TLS alert is said to whom speaks no TLS";
  EXPECT_EQ(shell("onestep cancel " + id + " --url " + service_->url()).exit_status, 0);
  service_->wait_for(id, {"cancelled"});
}

}  // namespace
}  // namespace onestep
