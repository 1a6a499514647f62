#include "coordinator/launcher/local_mpirun.h"

#include <fcntl.h>
#include <signal.h>
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
#include "common/log.h"
#include "common/run_folder.h"

namespace onestep {
namespace {

namespace fs = std::filesystem;

constexpr int kBackgroundNice = 10;
constexpr const char* kMarker = "ONESTEP_ATTEMPT_ID=";

std::string marker(const LaunchRequest& request) {
  return kMarker + request.run_folder + "#" + std::to_string(request.attempt);
}

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

bool is_alive(const ProcessIdentity& process) {
  const std::optional<ProcessStat> stat = process_stat(process.pid);
  return stat && stat->start_time == process.start_time && stat->state != 'Z' && stat->state != 'X';
}

// Processes that carry the attempt's mark, this one excepted.
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

ProcessEnd describe(int status) {
  if (WIFEXITED(status)) {
    const int code = WEXITSTATUS(status);
    return {code == 0, "mpirun ended with status " + std::to_string(code)};
  }
  const int signal = WTERMSIG(status);
  return {false, "mpirun ended by signal " + std::to_string(signal) + " (" +
                     std::string(::strsignal(signal)) + ")"};
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

std::vector<std::string> own_environment() {
  std::vector<std::string> variables;
  for (char** variable = ::environ; *variable != nullptr; ++variable) {
    variables.emplace_back(*variable);
  }
  return variables;
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> result;
  for (std::string& text : texts) result.push_back(text.data());
  result.push_back(nullptr);
  return result;
}

// The child between fork and exec: only calls that are safe there. Does not return.
[[noreturn]] void become(char* const* argv, char* const* environment, int input, int output,
                         bool background, int report) {
  ::setsid();
  ::dup2(input, 0);
  ::dup2(output, 1);
  ::dup2(output, 2);
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
  for (const int signal : {SIGPIPE, SIGINT, SIGTERM, SIGHUP, SIGCHLD}) ::signal(signal, SIG_DFL);
  if (background) ::setpriority(PRIO_PROCESS, 0, kBackgroundNice);
  ::execve(argv[0], argv, environment);
  const int cause = errno;
  [[maybe_unused]] const ssize_t told = ::write(report, &cause, sizeof cause);
  ::_exit(127);
}

// A file descriptor that closes itself.
class Descriptor {
 public:
  explicit Descriptor(int value) : value_(value) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() { close(); }
  void close() {
    if (value_ >= 0) ::close(value_);
    value_ = -1;
  }
  [[nodiscard]] int get() const { return value_; }

 private:
  int value_;
};

int open_or_throw(const std::string& path, int flags) {
  const int descriptor = ::open(path.c_str(), flags | O_CLOEXEC, 0644);
  if (descriptor < 0) {
    throw Error(ErrorCode::kIo, path + ": open failed; " + std::strerror(errno));
  }
  return descriptor;
}

}  // namespace

std::string worker_beside_this_program() {
  return (fs::read_symlink("/proc/self/exe").parent_path() / "onestep-worker").string();
}

std::vector<std::string> allowed_environment(const std::vector<std::string>& source) {
  static constexpr std::array kNames = {"PATH",  "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH",
                                        "TMPDIR"};
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

LocalMpirun::LocalMpirun(LocalMpirunOptions options) : options_(std::move(options)) {
  ::prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
}

std::vector<std::string> LocalMpirun::command(const LaunchRequest& request) const {
  return {options_.mpirun,
          "--allow-run-as-root",
          "--oversubscribe",
          "--bind-to",
          "none",
          "-n",
          std::to_string(request.ranks),
          options_.worker,
          job_file(request.run_folder),
          "--job-id",
          request.job,
          "--attempt",
          std::to_string(request.attempt),
          "--coordinator",
          request.coordinator_file};
}

ProcessIdentity LocalMpirun::launch(const LaunchRequest& request) {
  std::vector<std::string> arguments = command(request);
  arguments[0] = find_program(options_.mpirun);
  find_program(options_.worker);
  std::vector<std::string> environment = allowed_environment(own_environment());
  environment.push_back(marker(request));
  environment.emplace_back("OMP_NUM_THREADS=1");
  if (request.ranks > options_.cores) environment.emplace_back("OMPI_MCA_mpi_yield_when_idle=1");

  const std::string log_path = mpirun_log_file(request.run_folder, request.attempt);
  const Descriptor input(open_or_throw("/dev/null", O_RDONLY));
  const Descriptor output(open_or_throw(log_path, O_WRONLY | O_CREAT | O_APPEND));
  std::array<int, 2> report{};
  if (::pipe2(report.data(), O_CLOEXEC) != 0) {
    throw Error(ErrorCode::kIo,
                std::string("launching ") + request.job + ": pipe failed; " + std::strerror(errno));
  }
  const Descriptor report_read(report[0]);
  Descriptor report_write(report[1]);
  const std::vector<char*> argv = pointers(arguments);
  const std::vector<char*> envp = pointers(environment);

  const pid_t pid = ::fork();
  if (pid < 0) {
    throw Error(ErrorCode::kIo,
                std::string("launching ") + request.job + ": fork failed; " + std::strerror(errno));
  }
  if (pid == 0) {
    become(argv.data(), envp.data(), input.get(), output.get(), request.background,
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
  children_[pid] = identity;
  ends_.erase(pid);
  return identity;
}

void LocalMpirun::reap() {
  int status = 0;
  for (pid_t pid = ::waitpid(-1, &status, WNOHANG); pid > 0;
       pid = ::waitpid(-1, &status, WNOHANG)) {
    if (children_.contains(pid)) ends_[pid] = describe(status);
  }
}

std::optional<ProcessEnd> LocalMpirun::poll(const ProcessIdentity& process) {
  reap();
  const auto child = children_.find(process.pid);
  if (child != children_.end() && child->second.start_time == process.start_time) {
    const auto end = ends_.find(process.pid);
    if (end == ends_.end()) return std::nullopt;
    return end->second;
  }
  if (is_alive(process)) return std::nullopt;
  return ProcessEnd{false,
                    "mpirun ended while no coordinator watched it, so its exit status is unknown"};
}

std::optional<ProcessIdentity> LocalMpirun::find(const LaunchRequest& request) {
  // The session's leader is mpirun; the ranks only share its mark.
  for (const std::int64_t pid : marked_processes(marker(request))) {
    if (::getsid(static_cast<pid_t>(pid)) != pid) continue;
    const std::optional<ProcessStat> stat = process_stat(pid);
    if (stat && stat->state != 'Z') return ProcessIdentity{pid, stat->start_time};
  }
  return std::nullopt;
}

void LocalMpirun::terminate(const ProcessIdentity& process) {
  reap();
  if (is_alive(process)) ::kill(static_cast<pid_t>(process.pid), SIGTERM);
}

int LocalMpirun::kill_all(const LaunchRequest& request) {
  std::set<std::int64_t> killed;
  // A process that forks while it is looked for is found in the next round.
  for (int round = 0; round < 10; ++round) {
    bool found = false;
    for (const std::int64_t pid : marked_processes(marker(request))) {
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
