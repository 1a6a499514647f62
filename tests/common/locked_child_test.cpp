#include "common/locked_child.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>

#include "support/files.h"
#include "support/temp_folder.h"

namespace onestep {
namespace {

using How = LockedChildEnd::How;

LockedChildEnd look(const std::function<std::string()>& action, const LockedChildLimits& limits = {}) {
  return look_in_locked_child("a test", limits, action);
}

// What `call` says in the child: "done", or why not.
template <class Call>
std::string outcome(Call call) {
  const LockedChildEnd end = look([call] { return std::string(call() >= 0 ? "done" : std::strerror(errno)); });
  return end.how == How::kReported ? end.report : "it died of signal " + std::to_string(end.signal);
}

const std::string kRefused = "Operation not permitted";

TEST(LockedChild, HandsBackWhatItSaw) {
  EXPECT_EQ(look([] { return std::string("seen"); }).report, "seen");
  EXPECT_EQ(look([] { return std::string(10'000, 'x'); }).report.size(), 4000U);
  const TempFolder folder;
  spit(folder / "file", "content");
  EXPECT_EQ(look([&] { return slurp(folder / "file"); }).report, "content");
}

TEST(LockedChild, ReachesNothingBeyondIt) {
  const TempFolder folder;
  spit(folder / "file", "content");
  const std::string file = folder / "file";
  EXPECT_EQ(outcome([] { return ::socket(AF_INET, SOCK_STREAM, 0); }), kRefused);
  EXPECT_EQ(outcome([] { return ::socket(AF_UNIX, SOCK_STREAM, 0); }), kRefused);
  EXPECT_EQ(outcome([] { return ::fork(); }), kRefused);
  EXPECT_EQ(outcome([] { return ::execl("/bin/true", "true", nullptr); }), kRefused);
  EXPECT_EQ(outcome([] { return ::kill(::getppid(), 0); }), kRefused);
  EXPECT_EQ(outcome([&] { return ::unlink(file.c_str()); }), kRefused);
  EXPECT_EQ(outcome([&] { return ::rename(file.c_str(), (file + "2").c_str()); }), kRefused);
  EXPECT_EQ(outcome([&] { return ::symlink("/etc", (file + "2").c_str()); }), kRefused);
  EXPECT_EQ(outcome([&] { return ::mkdir((file + "2").c_str(), 0700); }), kRefused);
  EXPECT_EQ(outcome([&] { return ::truncate(file.c_str(), 0); }), kRefused);
  EXPECT_EQ(slurp(file), "content");
}

TEST(LockedChild, WritesNoByteToAFile) {
  const TempFolder folder;
  spit(folder / "file", "");
  const LockedChildEnd end = look([&] {
    const int open = ::open((folder / "file").c_str(), O_WRONLY);
    return std::string(::write(open, "x", 1) == 1 ? "written" : "not");
  });
  EXPECT_EQ(end.how, How::kDied);
  EXPECT_EQ(end.signal, SIGXFSZ);
  EXPECT_EQ(slurp(folder / "file"), "");
}

TEST(LockedChild, OpensNothingMoreOnceItMayNot) {
  const TempFolder folder;
  spit(folder / "file", "content");
  EXPECT_EQ(outcome([] { return ::open("/etc/passwd", O_RDONLY); }), "done");
  EXPECT_EQ(outcome([] {
              forbid_opening();
              return ::open("/etc/passwd", O_RDONLY);
            }), kRefused);
  const LockedChildEnd open_before = look([&] {
    const int descriptor = ::open((folder / "file").c_str(), O_RDONLY);
    forbid_opening();
    char bytes[16];
    return std::string(bytes, static_cast<std::size_t>(std::max<ssize_t>(0, ::read(descriptor, bytes, sizeof bytes))));
  });
  EXPECT_EQ(open_before.report, "content") << "what is open is read on";
}

TEST(LockedChild, HasNoMoreMemoryThanItsLimit) {
  const auto map = [](std::size_t bytes) {
    return look([bytes] {
      void* place = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      return std::string(place == MAP_FAILED ? "refused" : "given");
    }, {.time_s = 10, .memory_bytes = 64U << 20}).report;
  };
  EXPECT_EQ(map(32U << 20), "given");
  EXPECT_EQ(map(65U << 20), "refused");
}

TEST(LockedChild, HasNoMoreTimeThanItsLimit) {
  const LockedChildLimits one_second{.time_s = 1, .memory_bytes = 64U << 20};
  const LockedChildEnd busy = look([] {
    const volatile bool for_ever = true;
    while (for_ever) {
    }
    return std::string();
  }, one_second);
  EXPECT_EQ(busy.how, How::kBusy);
  // One that sleeps uses no processor: the wall's clock ends it.
  const TempFolder folder;
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  const LockedChildEnd asleep = look([&] { return std::to_string(::open((folder / "pipe").c_str(), O_RDONLY)); }, one_second);
  EXPECT_EQ(asleep.how, How::kBusy);
}

TEST(LockedChild, ItsDeathIsToldAndHarmsNobody) {
  const LockedChildEnd end = look([] {
    volatile int* nowhere = nullptr;
    *nowhere = 1;
    return std::string("alive");
  });
  EXPECT_EQ(end.how, How::kDied);
  EXPECT_EQ(end.signal, SIGSEGV);
  EXPECT_EQ(end.report, "");
  EXPECT_EQ(look([]() -> std::string { std::abort(); }).how, How::kDied);
  EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG), -1) << "no child is left";
}

}  // namespace
}  // namespace onestep
