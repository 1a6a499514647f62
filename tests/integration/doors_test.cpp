// The doors, with whole programs: tokens, TLS, roots, backups, Ctrl-C.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "common/durable_file.h"
#include "integration/service.h"
#include "support/files.h"
#include "support/temp_folder.h"

namespace onestep {
namespace {

using testing::HasSubstr;
using testing::Not;

std::string trimmed(std::string text) {
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

// `onestep up` with arguments of its own, in `folder`.
class Up {
 public:
  Up(const std::string& folder, const std::string& arguments) : log_(folder + "/up.log") {
    const std::string command = "cd " + folder + " && exec " + program("onestep") + " up --data data " + arguments + " > up.log 2>&1";
    std::filesystem::remove(log_);
    pid_ = ::fork();
    if (pid_ == 0) {
      ::execl("/bin/sh", "sh", "-c", command.c_str(), nullptr);
      ::_exit(127);
    }
    wait_until("coordinator listens", 60, [&] { return log().find(", data in ") != std::string::npos; });
    const std::size_t at = log().find("listening on ") + 13;
    url = log().substr(at, log().find(',', at) - at);
  }
  ~Up() {
    ::kill(pid_, SIGTERM);
    pause(false);
    ::waitpid(pid_, nullptr, 0);
  }
  [[nodiscard]] std::string log() const { return file_exists(log_) ? slurp(log_) : ""; }
  void pause(bool on) const { ::kill(pid_, on ? SIGSTOP : SIGCONT); }
  std::string url;

 private:
  std::string log_;
  pid_t pid_ = -1;
};

TEST(Doors, ANetworkListenerNeedsTlsAndATokenAndThenServes) {
  const TempFolder folder;
  const std::string in = "cd " + folder.path() + "; ";
  EXPECT_THAT(shell(in + "onestep up --data data --listen 0.0.0.0:0").error, HasSubstr("expected TLS"));
  EXPECT_EQ(shell(in + "onestep init-tls --out tls --name localhost --name 127.0.0.1").exit_status, 0);
  const ShellResult none = shell(in + "onestep up --data data --listen 0.0.0.0:0 --tls tls");
  EXPECT_EQ(none.exit_status, 2);
  EXPECT_THAT(none.error, HasSubstr("at least one valid token"));
  EXPECT_THAT(shell(in + "onestep up --data data --listen 0.0.0.0:0 --tls tls --auth none").error, HasSubstr("--auth none"));
  ASSERT_EQ(shell(in + "onestep token add --data data --role admin --label me --out admin.token").exit_status, 0);
  const std::string read = trimmed(shell(in + "onestep token add --data data --role read --expires 1h").output);
  ASSERT_EQ(read.size(), 81U);

  Up up(folder.path(), "--listen 0.0.0.0:0 --tls tls");
  const std::string port = up.url.substr(up.url.rfind(':') + 1);
  const std::string with = in + "export ONESTEP_URL=https://localhost:" + port + " ONESTEP_CA=tls/ca.crt; ";
  EXPECT_EQ(shell(with + "onestep jobs --token-file admin.token").output, "no jobs\n");
  EXPECT_EQ(shell(with + "ONESTEP_TOKEN=" + read + " onestep jobs").exit_status, 0);
  const ShellResult weak = shell(with + "ONESTEP_TOKEN=" + read + " onestep cancel x");
  EXPECT_EQ(weak.exit_status, 8);
  EXPECT_THAT(weak.error, HasSubstr("role submit"));
  EXPECT_EQ(shell(with + "onestep jobs").exit_status, 8) << "no token";
  EXPECT_EQ(shell(with + "unset ONESTEP_CA; onestep jobs --token-file admin.token").exit_status, 6) << "an unknown authority";
  EXPECT_EQ(shell(with + "chmod 644 admin.token; onestep jobs --token-file admin.token").exit_status, 8);
  ASSERT_EQ(shell(in + "onestep token revoke --data data " + read.substr(8, 8)).exit_status, 0);
  EXPECT_THAT(shell(with + "ONESTEP_TOKEN=" + read + " onestep jobs").error, HasSubstr("was revoked"));
  EXPECT_THAT(shell(in + "onestep token list --data data").output, HasSubstr(read.substr(8, 8) + "  read    revoked"));
  // From afar, by one of role admin.
  ASSERT_EQ(shell(in + "chmod 600 admin.token").exit_status, 0);
  const std::string admin = "--token-file admin.token ";
  ASSERT_EQ(shell(with + "onestep token add " + admin + "--role submit --label ci --expires 1h --out ci.token").exit_status, 0);
  EXPECT_EQ(shell(with + "onestep jobs --token-file ci.token").exit_status, 0);
  EXPECT_EQ(shell(with + "onestep token list --token-file ci.token").exit_status, 8);
  const nlohmann::json listed = shell(with + "onestep token list --json " + admin).last_line();
  EXPECT_EQ(listed, shell(in + "onestep token list --json --data data").last_line());
  const std::string ci = listed.at("items").back().at("id");
  EXPECT_THAT(shell(with + "onestep token list " + admin).output, HasSubstr(ci + "  submit  valid"));
  EXPECT_EQ(shell(with + "onestep token revoke " + admin + ci).output, "token " + ci + " revoked\n");
  EXPECT_EQ(shell(with + "onestep jobs --token-file ci.token").exit_status, 8);
  EXPECT_EQ(shell(with + "onestep token add " + admin + "--role read --out nowhere/token").exit_status, 5);
  EXPECT_EQ(shell(with + "onestep token list --json " + admin).last_line().at("items").back().at("state"), "revoked") << "could not be handed over";
  EXPECT_EQ(shell(with + "onestep token add " + admin + "--role read --expires soon").exit_status, 2);
  EXPECT_EQ(shell(with + "onestep token list --data data " + admin).exit_status, 2) << "there or here, not both";
  EXPECT_THAT(up.log(), Not(HasSubstr(read.substr(17))));
  EXPECT_THAT(up.log(), Not(HasSubstr(trimmed(slurp(folder / "admin.token")).substr(17))));
  // A plain request at the door of TLS, and a name that is not the certificate's.
  EXPECT_NE(shell("exec 3<>/dev/tcp/127.0.0.1/" + port + "; printf 'GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n' >&3; grep -q 200 <&3").exit_status, 0);
}

TEST(Doors, ASingleUserWorksInTheFolderWhereItWasStarted) {
  const TempFolder folder, elsewhere;
  Up up(folder.path(), "--listen 127.0.0.1:0");
  const std::string spec = R"({"name":"d","kind":"train_detector","dataset":{"path":"missing.h5"}})";
  spit(folder / "job.json", spec);
  spit(elsewhere / "job.json", spec);
  const std::string submit = "export HOME=/nonexistent; onestep submit --url " + up.url + " ";
  EXPECT_EQ(shell(submit + (folder / "job.json")).exit_status, 0);
  const ShellResult refused = shell(submit + (elsewhere / "job.json"));
  EXPECT_EQ(refused.exit_status, 3);
  EXPECT_THAT(refused.error, HasSubstr("--root DIR"));
}

TEST(Doors, ABackupIsTakenWhileTheCoordinatorRuns) {
  const TempFolder folder;
  Up up(folder.path(), "--listen 127.0.0.1:0 --root /");
  spit(folder / "job.json", R"({"name":"d","kind":"train_detector","dataset":{"path":"missing.h5"}})");
  ASSERT_EQ(shell("onestep submit --url " + up.url + " " + (folder / "job.json")).exit_status, 0);
  const ShellResult made = shell("cd " + folder.path() + "; onestep backup --data data --out copy --json");
  EXPECT_EQ(made.exit_status, 0) << made.error;
  EXPECT_EQ(made.last_line().at("jobs"), 1);
  EXPECT_EQ(shell("cd " + folder.path() + "/copy; sha256sum --check --quiet SHA256SUMS").exit_status, 0);
  EXPECT_EQ(shell("cd " + folder.path() + "; onestep backup --data data --out copy").exit_status, 8);
  EXPECT_EQ(shell("cd " + folder.path() + "; onestep backup --data nowhere --out other").exit_status, 4);
}

// Has the process a handler for the signal?
bool catches(pid_t process, int signal) {
  const std::string status = slurp("/proc/" + std::to_string(process) + "/status");
  const std::size_t at = status.find("SigCgt:");
  return at != std::string::npos && (std::stoull(status.substr(at + 7), nullptr, 16) >> (signal - 1) & 1) != 0;
}

TEST(Doors, CtrlCLeavesTheJobsAndSaysSo) {
  const TempFolder folder;
  Up up(folder.path(), "--listen 127.0.0.1:0 --root /");
  spit(folder / "job.json", R"({"name":"d","kind":"train_detector","dataset":{"path":"missing.h5"}})");
  ASSERT_EQ(shell("onestep submit --url " + up.url + " " + (folder / "job.json")).exit_status, 0);
  up.pause(true);  // so that there is something to wait for
  const pid_t follower = ::fork();
  if (follower == 0) {
    // No shell in between: it would catch the signal itself while it starts.
    ::dup2(::open((folder / "said").c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600), STDERR_FILENO);
    ::execl(program("onestep").c_str(), "onestep", "follow", "d-p1", "--url", up.url.c_str(), nullptr);
    ::_exit(127);
  }
  wait_until("it watches", 30, [&] { return catches(follower, SIGINT); });
  ::kill(follower, SIGINT);
  int status = 0;
  ::waitpid(follower, &status, 0);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 130);
  EXPECT_THAT(slurp(folder / "said"), HasSubstr("the jobs go on. Watch them again with 'onestep follow d-p1'"));
  up.pause(false);
  EXPECT_THAT(shell("onestep show d --json --url " + up.url).output, Not(HasSubstr("cancelled")));
}

}  // namespace
}  // namespace onestep
