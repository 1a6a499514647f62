#include "common/hdf5_guard.h"

#include <fcntl.h>
#include <hdf5.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <set>
#include <tuple>

#include "common/error.h"
#include "common/hdf5_handle.h"

namespace onestep {
namespace {

constexpr int kTimeLimit_s = 10;
constexpr rlim_t kMemoryLimit = rlim_t{1} << 30;  // beyond what the process has
constexpr int kMaxObjects = 100'000;

// ---- In the child: no output, no locks, no exceptions; ends by _exit. ----

// Answers EPERM to what could reach beyond the file; kills a call of another instruction set.
void forbid_calls() {
#if defined(__x86_64__)
  constexpr std::uint32_t kArchitecture = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
  constexpr std::uint32_t kArchitecture = AUDIT_ARCH_AARCH64;
#else
#error "hdf5_guard: which architecture's system calls?"
#endif
  static constexpr std::array kForbidden = {SYS_socket, SYS_socketpair, SYS_connect, SYS_bind,   SYS_sendto, SYS_execve,
                                            SYS_execveat, SYS_ptrace,   SYS_clone,   SYS_clone3, SYS_kill,   SYS_unlinkat,
                                            SYS_renameat2, SYS_mkdirat, SYS_mount,   SYS_process_vm_writev};
  std::array<sock_filter, kForbidden.size() + 6> program{};
  std::size_t size = 0;
  const auto add = [&](sock_filter step) { program[size++] = step; };
  add(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, arch)));
  add(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, kArchitecture, 1, 0));
  add(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS));
  add(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)));
  for (std::size_t i = 0; i < kForbidden.size(); ++i) {
    const auto to_refusal = static_cast<std::uint8_t>(kForbidden.size() - i);
    add(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<std::uint32_t>(kForbidden[i]), to_refusal, 0));
  }
  add(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
  add(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM));
  const sock_fprog filter{static_cast<unsigned short>(size), program.data()};
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0) ::_exit(125);
}

void limit(__rlimit_resource resource, rlim_t value) {
  const rlimit limits{value, value};
  if (::setrlimit(resource, &limits) != 0) ::_exit(125);
}

rlim_t mapped_bytes() {
  long pages = 0;
  std::FILE* file = std::fopen("/proc/self/statm", "r");
  if (file == nullptr || std::fscanf(file, "%ld", &pages) != 1) ::_exit(125);
  std::fclose(file);
  return static_cast<rlim_t>(pages) * static_cast<rlim_t>(::sysconf(_SC_PAGESIZE));
}

void lock_in() {
  ::unshare(CLONE_NEWNET);  // where the system lets us; the filter below holds either way
  limit(RLIMIT_CPU, kTimeLimit_s);
  limit(RLIMIT_AS, mapped_bytes() + kMemoryLimit);
  limit(RLIMIT_FSIZE, 0);
  limit(RLIMIT_CORE, 0);
  limit(RLIMIT_NPROC, 0);
  for (const int signal : {SIGSEGV, SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGTERM, SIGINT, SIGUSR1}) ::signal(signal, SIG_DFL);
  forbid_calls();
}

struct Findings {
  char text[200] = "";
  int num_objects = 0;
};

herr_t refuse(Findings& findings, const char* name, const char* what) {
  std::snprintf(findings.text, sizeof findings.text, "\"%.80s\" is %s", name, what);
  return 1;  // no further
}

herr_t look_at_link(hid_t, const char* name, const H5L_info_t* info, void* data) {
  auto& findings = *static_cast<Findings*>(data);
  if (info->type == H5L_TYPE_EXTERNAL) return refuse(findings, name, "a link to another file");
  if (info->type == H5L_TYPE_SOFT) return refuse(findings, name, "a soft link");
  if (info->type != H5L_TYPE_HARD) return refuse(findings, name, "a link of an unknown kind");
  if (++findings.num_objects > kMaxObjects) return refuse(findings, name, "one of more than 100,000 links");
  return 0;
}

herr_t look_at_object(hid_t root, const char* name, const H5O_info_t* info, void* data) {
  auto& findings = *static_cast<Findings*>(data);
  if (++findings.num_objects > 2 * kMaxObjects) return refuse(findings, name, "one of more than 100,000 objects");
  if (info->type != H5O_TYPE_DATASET) return 0;
  const hid_t dataset = H5Dopen2(root, name, H5P_DEFAULT);
  if (dataset < 0) return 0;  // the reader will say so
  const hid_t creation = H5Dget_create_plist(dataset);
  herr_t verdict = 0;
  if (creation >= 0) {
    const H5D_layout_t layout = H5Pget_layout(creation);
    if (layout == H5D_VIRTUAL) verdict = refuse(findings, name, "a virtual dataset, whose data is in other files");
    if (verdict == 0 && layout == H5D_CONTIGUOUS && H5Pget_external_count(creation) != 0) {
      verdict = refuse(findings, name, "a dataset whose data is in other files");
    }
    const int num_filters = H5Pget_nfilters(creation);
    for (int i = 0; verdict == 0 && i < num_filters; ++i) {
      unsigned flags = 0;
      std::size_t num_values = 0;
      const H5Z_filter_t filter =
          H5Pget_filter2(creation, static_cast<unsigned>(i), &flags, &num_values, nullptr, 0, nullptr, nullptr);
      if (filter != H5Z_FILTER_DEFLATE && filter != H5Z_FILTER_SHUFFLE && filter != H5Z_FILTER_FLETCHER32) {
        verdict = refuse(findings, name, "a dataset with a filter other than deflate, shuffle and fletcher32");
      }
    }
    H5Pclose(creation);
  }
  H5Dclose(dataset);
  return verdict;
}

[[noreturn]] void look_and_exit(const char* path, int report) {
  lock_in();
  const QuietHdf5 quiet;
  H5PLset_loading_state(0);
  Findings findings;
  const hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
  if (file >= 0) {
    const herr_t links = H5Lvisit(file, H5_INDEX_NAME, H5_ITER_NATIVE, look_at_link, &findings);
    if (links <= 0) H5Ovisit(file, H5_INDEX_NAME, H5_ITER_NATIVE, look_at_object, &findings);
  }
  const std::size_t size = std::strlen(findings.text);
  const ssize_t told = ::write(report, findings.text, size);
  ::_exit(told == static_cast<ssize_t>(size) ? 0 : 125);
}

// ---- In the process that wants to know. ----

// What the child wrote, until it ends or its time is over; then it is killed.
std::string wait_for_report(int report) {
  std::string text;
  std::array<char, 256> bytes{};
  const auto remaining = [end = ::time(nullptr) + kTimeLimit_s + 1] { return static_cast<int>(end - ::time(nullptr)) * 1000; };
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

std::string verdict_on(const std::string& path) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
    throw Error(ErrorCode::kIo, path + ": no pipe to a process that looks at it; " + std::strerror(errno));
  }
  const pid_t child = ::fork();
  if (child == 0) look_and_exit(path.c_str(), ends[1]);
  ::close(ends[1]);
  if (child < 0) {
    const int cause = errno;
    ::close(ends[0]);
    throw Error(ErrorCode::kIo, path + ": no process to look at it; " + std::strerror(cause));
  }
  const std::string text = wait_for_report(ends[0]);
  ::close(ends[0]);
  int status = 0;
  ::kill(child, SIGKILL);  // one that has ended keeps its status
  while (::waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) throw Error(ErrorCode::kIo, path + ": lost the process that looked at it; " + std::strerror(errno));
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return text;
  if (WIFEXITED(status)) throw Error(ErrorCode::kIo, path + ": the process that was to look at it could not lock itself in");
  const int signal = WTERMSIG(status);
  return signal == SIGKILL || signal == SIGXCPU
             ? "it keeps the HDF5 library busy for more than " + std::to_string(kTimeLimit_s) + " s"
             : std::string("the HDF5 library dies of it (") + ::strsignal(signal) + ")";
}

}  // namespace

void check_hdf5_in_child(const std::string& path) {
  using Identity = std::tuple<dev_t, ino_t, off_t, time_t, long>;
  static std::mutex mutex;
  static std::set<Identity> passed;
  H5PLset_loading_state(0);
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return;  // the reader says so
  const Identity identity{status.st_dev, status.st_ino, status.st_size, status.st_ctim.tv_sec, status.st_ctim.tv_nsec};
  // One at a time: a child that is made while another thread is inside the HDF5 library inherits a half-changed one.
  const std::scoped_lock lock(mutex);
  if (passed.contains(identity)) return;
  const std::string found = verdict_on(path);
  if (!found.empty()) {
    throw Error(ErrorCode::kCorrupt, path + ": expected an HDF5 file with its own data alone, found that " + found);
  }
  passed.insert(identity);
}

}  // namespace onestep
