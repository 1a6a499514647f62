#include "coordinator/launcher/children.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <sstream>

#include "common/error.h"

namespace onestep {
namespace {

namespace fs = std::filesystem;

constexpr int kBackgroundNice = 10;
constexpr const char* kMarker = "ONESTEP_ATTEMPT_ID=";

std::string read_proc(std::int64_t pid, const char* name) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/" + name, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

struct ProcessStat {
  char state = '?';
  std::int64_t start_time = 0;
};

std::optional<ProcessStat> process_stat(std::int64_t pid) {
  const std::string text = read_proc(pid, "stat");
  // The program's name, field 2, is in parentheses and may hold anything.
  const std::size_t name_end = text.rfind(')');
  if (name_end == std::string::npos) return std::nullopt;
  std::istringstream fields(text.substr(name_end + 1));
  ProcessStat stat;
  fields >> stat.state;
  std::string field;
  for (int number = 4; number < 22; ++number) fields >> field;
  fields >> stat.start_time;
  if (!fields) return std::nullopt;
  return stat;
}

// Processes that carry the mark, this one excepted.
std::vector<std::int64_t> marked_processes(const std::string& mark) {
  std::vector<std::int64_t> pids;
  for (const auto& entry : fs::directory_iterator("/proc")) {
    const std::string name = entry.path().filename().string();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    const std::int64_t pid = std::strtoll(name.c_str(), nullptr, 10);
    if (pid == ::getpid()) continue;
    const std::string environment = '\0' + read_proc(pid, "environ");
    if (environment.find('\0' + mark + '\0') != std::string::npos) pids.push_back(pid);
  }
  return pids;
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> result;
  for (std::string& text : texts) result.push_back(text.data());
  result.push_back(nullptr);
  return result;
}

// The child between fork and exec: only calls that are safe there. Does not return.
[[noreturn]] void become(char* const* argv, char* const* environment, int input, int output,
                         int errors, bool background, int report) {
  ::setsid();
  ::dup2(input, 0);
  ::dup2(output, 1);
  ::dup2(errors, 2);
  // Nothing else is inherited: a listening port or the folder's lock must not outlive the
  // coordinator. All is closed here and now; `report` alone closes with exec, so that when it tells
  // the coordinator of its success the lock is the coordinator's alone.
  const auto kept = static_cast<unsigned>(report);
  const bool below = kept == 3 || ::close_range(3, kept - 1, 0) == 0;
  if (!below || ::close_range(kept + 1, ~0U, 0) != 0) {
    const int limit = static_cast<int>(std::min(::sysconf(_SC_OPEN_MAX), 65536L));
    for (int descriptor = 3; descriptor < limit; ++descriptor) {
      if (descriptor != report) ::close(descriptor);
    }
  }
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  for (const int signal : {SIGPIPE, SIGINT, SIGTERM, SIGHUP, SIGCHLD, SIGUSR1}) ::signal(signal, SIG_DFL);
  if (background) ::setpriority(PRIO_PROCESS, 0, kBackgroundNice);
  ::execve(argv[0], argv, environment);
  const int cause = errno;
  [[maybe_unused]] const ssize_t told = ::write(report, &cause, sizeof cause);
  ::_exit(127);
}

Error system_error(const std::string& program, const char* call) {
  return Error(ErrorCode::kIo, program + ": " + call + " failed; " + std::strerror(errno));
}

}  // namespace

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  std::swap(value_, other.value_);
  return *this;
}

void Descriptor::close() {
  if (value_ >= 0) ::close(value_);
  value_ = -1;
}

Descriptor open_or_throw(const std::string& path, int flags) {
  Descriptor descriptor(::open(path.c_str(), flags | O_CLOEXEC, 0644));
  if (descriptor.get() < 0) throw system_error(path, "open");
  return descriptor;
}

Descriptor memory_file() {
  Descriptor descriptor(::memfd_create("onestep", MFD_CLOEXEC));
  if (descriptor.get() < 0) throw system_error("a file in memory", "memfd_create");
  return descriptor;
}

std::string content_of(const Descriptor& file) {
  std::string content;
  std::array<char, 16 * 1024> bytes;
  while (true) {
    const ssize_t size = ::pread(file.get(), bytes.data(), bytes.size(), static_cast<off_t>(content.size()));
    if (size <= 0) return content;
    content.append(bytes.data(), static_cast<std::size_t>(size));
  }
}

std::string find_program(const std::string& name) {
  if (name.find('/') != std::string::npos) {
    if (::access(name.c_str(), X_OK) == 0) return name;
    throw Error(ErrorCode::kNotFound, name + ": expected a program, found none");
  }
  const char* path = std::getenv("PATH");
  std::istringstream folders(path != nullptr ? path : "/usr/local/bin:/usr/bin:/bin");
  for (std::string folder; std::getline(folders, folder, ':');) {
    const std::string candidate = folder + "/" + name;
    if (::access(candidate.c_str(), X_OK) == 0 && !fs::is_directory(candidate)) return candidate;
  }
  throw Error(ErrorCode::kNotFound, name + ": expected a program in PATH, found none");
}

std::string worker_beside_this_program() {
  return (fs::read_symlink("/proc/self/exe").parent_path() / "onestep-worker").string();
}

std::vector<std::string> allowed_environment(const std::vector<std::string>& source) {
  static constexpr std::array kNames = {"PATH",   "HOME",           "LANG", "LC_ALL", "LD_LIBRARY_PATH",
                                        "TMPDIR", "SLURM_CONF"};
  static constexpr std::array kPrefixes = {"ONESTEP_", "OMPI_MCA_", "OMPI_ALLOW_"};
  std::vector<std::string> allowed;
  for (const std::string& variable : source) {
    const std::string name = variable.substr(0, variable.find('='));
    const bool named = std::find(kNames.begin(), kNames.end(), name) != kNames.end();
    const bool prefixed = std::any_of(kPrefixes.begin(), kPrefixes.end(),
                                      [&](const char* prefix) { return name.starts_with(prefix); });
    // What opens the coordinator's doors to a person is no job's business.
    const bool secret = name.starts_with("ONESTEP_TOKEN");
    if ((named || prefixed) && !secret && !variable.starts_with(kMarker)) allowed.push_back(variable);
  }
  return allowed;
}

std::vector<std::string> own_environment() {
  std::vector<std::string> variables;
  for (char** variable = ::environ; *variable != nullptr; ++variable) {
    variables.emplace_back(*variable);
  }
  return variables;
}

std::string attempt_mark(const LaunchRequest& request) {
  return kMarker + request.run_folder + "#" + std::to_string(request.attempt);
}

bool is_alive(const ProcessIdentity& process) {
  const std::optional<ProcessStat> stat = process_stat(process.pid);
  return stat && stat->start_time == process.start_time && stat->state != 'Z' && stat->state != 'X';
}

std::optional<ProcessIdentity> marked_leader(const std::string& mark, const std::string& program) {
  for (const std::int64_t pid : marked_processes(mark)) {
    if (::getsid(static_cast<pid_t>(pid)) != pid) continue;
    if (!program.empty() && read_proc(pid, "comm") != program + "\n") continue;
    const std::optional<ProcessStat> stat = process_stat(pid);
    if (stat && stat->state != 'Z') return ProcessIdentity{pid, stat->start_time};
  }
  return std::nullopt;
}

ProcessEnd describe_end(const std::string& program, int wait_status) {
  if (WIFEXITED(wait_status)) {
    const int code = WEXITSTATUS(wait_status);
    return {code == 0, program + " ended with status " + std::to_string(code)};
  }
  const int signal = WTERMSIG(wait_status);
  return {false, program + " ended by signal " + std::to_string(signal) + " (" +
                     std::string(::strsignal(signal)) + ")"};
}

Children::Children() { ::prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); }

ProcessIdentity Children::start(const ChildProgram& program) {
  std::vector<std::string> arguments = program.arguments;
  std::vector<std::string> environment = program.environment;
  const Descriptor input = open_or_throw("/dev/null", O_RDONLY);
  std::array<int, 2> report{};
  if (::pipe2(report.data(), O_CLOEXEC) != 0) throw system_error(arguments[0], "pipe");
  const Descriptor report_read(report[0]);
  Descriptor report_write(report[1]);
  const std::vector<char*> argv = pointers(arguments);
  const std::vector<char*> envp = pointers(environment);

  const pid_t pid = ::fork();
  if (pid < 0) throw system_error(arguments[0], "fork");
  if (pid == 0) {
    become(argv.data(), envp.data(), input.get(), program.output, program.errors, program.background,
           report_write.get());
  }
  report_write.close();
  int cause = 0;
  ssize_t size = 0;
  do {
    size = ::read(report_read.get(), &cause, sizeof cause);
  } while (size < 0 && errno == EINTR);
  if (size == sizeof cause) {
    ::waitpid(pid, nullptr, 0);
    throw Error(ErrorCode::kIo, arguments[0] + ": exec failed; " + std::strerror(cause));
  }
  // Not reaped yet, so the number is still its own even if it has ended already.
  const std::optional<ProcessStat> stat = process_stat(pid);
  const ProcessIdentity identity{pid, stat ? stat->start_time : 0};
  children_[pid] = {identity.start_time, std::nullopt};
  return identity;
}

void Children::reap() {
  int status = 0;
  for (pid_t pid = ::waitpid(-1, &status, WNOHANG); pid > 0; pid = ::waitpid(-1, &status, WNOHANG)) {
    const auto child = children_.find(pid);
    if (child != children_.end()) child->second.end = status;
  }
}

bool Children::knows(const ProcessIdentity& process) const {
  const auto child = children_.find(process.pid);
  return child != children_.end() && child->second.start_time == process.start_time;
}

std::optional<int> Children::end_of(const ProcessIdentity& process) {
  reap();
  if (!knows(process)) return std::nullopt;
  return children_.at(process.pid).end;
}

void Children::forget(const ProcessIdentity& process) {
  if (knows(process)) children_.erase(process.pid);
}

int Children::kill_marked(const std::string& mark) {
  std::set<std::int64_t> killed;
  // A process that forks while it is looked for is found in the next round.
  for (int round = 0; round < 10; ++round) {
    bool found = false;
    for (const std::int64_t pid : marked_processes(mark)) {
      const std::optional<ProcessStat> stat = process_stat(pid);
      if (!stat || stat->state == 'Z') continue;
      if (::kill(static_cast<pid_t>(pid), SIGKILL) != 0) continue;
      killed.insert(pid);
      found = true;
    }
    if (!found) break;
    ::usleep(2000);
  }
  reap();
  return static_cast<int>(killed.size());
}

}  // namespace onestep
