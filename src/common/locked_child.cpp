#include "common/locked_child.h"

#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <initializer_list>

#include "common/error.h"

namespace onestep {
namespace {

constexpr std::size_t kMaxReport = 4000;
constexpr std::size_t kMaxForbidden = 40;
constexpr int kCouldNotLockIn = 125;

// ---- In the child: no output, no locks, no exceptions; ends by _exit. ----

// Answers EPERM to these calls; kills one of another instruction set.
void forbid(std::initializer_list<long> calls) {
#if defined(__x86_64__)
  constexpr std::uint32_t kArchitecture = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
  constexpr std::uint32_t kArchitecture = AUDIT_ARCH_AARCH64;
#else
#error "locked_child: which architecture's system calls?"
#endif
  std::array<sock_filter, kMaxForbidden + 6> program{};
  std::size_t size = 0;
  const auto add = [&](sock_filter step) { program[size++] = step; };
  add(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, arch)));
  add(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, kArchitecture, 1, 0));
  add(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS));
  add(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)));
  std::size_t left = calls.size();
  if (left > kMaxForbidden) ::_exit(kCouldNotLockIn);
  for (const long call : calls) {
    const auto to_refusal = static_cast<std::uint8_t>(left--);
    add(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<std::uint32_t>(call), to_refusal, 0));
  }
  add(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
  add(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM));
  const sock_fprog filter{static_cast<unsigned short>(size), program.data()};
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0) ::_exit(kCouldNotLockIn);
}

void limit(__rlimit_resource resource, rlim_t value) {
  const rlimit limits{value, value};
  if (::setrlimit(resource, &limits) != 0) ::_exit(kCouldNotLockIn);
}

rlim_t mapped_bytes() {
  long pages = 0;
  std::FILE* file = std::fopen("/proc/self/statm", "r");
  if (file == nullptr || std::fscanf(file, "%ld", &pages) != 1) ::_exit(kCouldNotLockIn);
  std::fclose(file);
  return static_cast<rlim_t>(pages) * static_cast<rlim_t>(::sysconf(_SC_PAGESIZE));
}

void lock_in(const LockedChildLimits& limits) {
  ::unshare(CLONE_NEWNET);  // where the system lets us; the filter below holds either way
  limit(RLIMIT_CPU, static_cast<rlim_t>(limits.time_s));
  limit(RLIMIT_AS, mapped_bytes() + limits.memory_bytes);
  limit(RLIMIT_FSIZE, 0);
  limit(RLIMIT_CORE, 0);
  limit(RLIMIT_NPROC, 0);
  for (const int signal : {SIGSEGV, SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGTERM, SIGINT, SIGUSR1}) ::signal(signal, SIG_DFL);
  forbid({SYS_socket,   SYS_socketpair, SYS_connect, SYS_bind,      SYS_sendto,  SYS_execve, SYS_execveat, SYS_ptrace,
          SYS_clone,    SYS_clone3,     SYS_kill,    SYS_tkill,     SYS_tgkill,  SYS_unlinkat, SYS_renameat2, SYS_linkat, SYS_symlinkat,
          SYS_mkdirat,  SYS_mknodat,    SYS_mount,   SYS_process_vm_writev, SYS_io_uring_setup, SYS_truncate, SYS_ftruncate,
#if defined(__x86_64__)
          SYS_fork, SYS_vfork, SYS_unlink, SYS_rename, SYS_mkdir, SYS_rmdir, SYS_link, SYS_symlink, SYS_mknod,
#endif
          SYS_prlimit64});
}

[[noreturn]] void look_and_exit(const LockedChildLimits& limits, const std::function<std::string()>& look, int report) {
  lock_in(limits);
  const std::string text = look().substr(0, kMaxReport);
  const ssize_t told = ::write(report, text.data(), text.size());
  ::_exit(told == static_cast<ssize_t>(text.size()) ? 0 : kCouldNotLockIn);
}

// ---- In the process that wants to know. ----

// What the child wrote, until it ends or `time_s` and one more are over.
std::string wait_for_report(int report, int time_s) {
  std::string text;
  std::array<char, 4096> bytes{};
  const auto remaining = [end = std::time(nullptr) + time_s + 1] { return static_cast<int>(end - std::time(nullptr)) * 1000; };
  while (remaining() > 0) {
    pollfd state{report, POLLIN, 0};
    if (::poll(&state, 1, remaining()) <= 0) continue;
    const ssize_t size = ::read(report, bytes.data(), bytes.size());
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0) break;
    text.append(bytes.data(), static_cast<std::size_t>(size));
  }
  return text;
}

}  // namespace

void forbid_opening() {
  forbid({SYS_openat, SYS_openat2, SYS_open_by_handle_at
#if defined(__x86_64__)
          , SYS_open, SYS_creat
#endif
  });
}

LockedChildEnd look_in_locked_child(const std::string& what, const LockedChildLimits& limits, const std::function<std::string()>& look) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
    throw Error(ErrorCode::kIo, what + ": no pipe to a process that looks at it; " + std::strerror(errno));
  }
  const pid_t child = ::fork();
  if (child == 0) look_and_exit(limits, look, ends[1]);
  ::close(ends[1]);
  if (child < 0) {
    const int cause = errno;
    ::close(ends[0]);
    throw Error(ErrorCode::kIo, what + ": no process to look at it; " + std::strerror(cause));
  }
  LockedChildEnd end;
  end.report = wait_for_report(ends[0], limits.time_s);
  ::close(ends[0]);
  int status = 0;
  ::kill(child, SIGKILL);  // one that has ended keeps its status
  while (::waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) throw Error(ErrorCode::kIo, what + ": lost the process that looked at it; " + std::strerror(errno));
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return end;
  if (WIFEXITED(status)) throw Error(ErrorCode::kIo, what + ": the process that was to look at it could not lock itself in");
  end.report.clear();
  end.signal = WTERMSIG(status);
  end.how = end.signal == SIGKILL || end.signal == SIGXCPU ? LockedChildEnd::How::kBusy : LockedChildEnd::How::kDied;
  return end;
}

}  // namespace onestep
