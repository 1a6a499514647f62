#include "cli/doctor.h"

#include <arpa/inet.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <map>
#include <memory>
#include <sstream>

#include "cli/local_program.h"
#include "cli/text.h"
#include "common/build_info.h"
#include "common/error.h"

namespace onestep {
namespace {

namespace fs = std::filesystem;

constexpr double kGib = 1024.0 * 1024.0 * 1024.0;

std::string version_text() { return std::string(build_version()) + " (" + build_commit() + ")"; }

const char* state_name(CheckState state) {
  switch (state) {
    case CheckState::kOk: return "ok";
    case CheckState::kWarning: return "warning";
    case CheckState::kFailed: return "failed";
    case CheckState::kSkipped: return "skipped";
  }
  return "";
}

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

std::string last_lines(const std::string& text) {
  std::string trimmed = text.substr(0, text.find_last_not_of('\n') + 1);
  std::replace(trimmed.begin(), trimmed.end(), '\n', ' ');
  return trimmed.size() > 300 ? "..." + trimmed.substr(trimmed.size() - 300) : trimmed;
}

// With both outputs, for a minute at most.
ProgramResult run(std::vector<std::string> words) {
  std::vector<std::string> command = {"/bin/sh", "-c", "exec timeout 60 \"$@\" 2>&1", "sh"};
  command.insert(command.end(), words.begin(), words.end());
  return run_program(command);
}

bool is_slurm(const DoctorOptions& options) { return options.launcher.starts_with("slurm-"); }

DoctorCheck check_programs() {
  try {
    const std::string worker = first_line(run_program({sibling_program("onestep-worker"), "--version"}).output);
    sibling_program("onestep-coordinator");
    const std::string expected = "onestep-worker " + version_text();
    if (worker == expected) return {"programs", CheckState::kOk, "onestep " + version_text()};
    return {"programs", CheckState::kFailed, "onestep-worker says \"" + worker + "\", expected \"" + expected + "\"",
            "install the three programs of one build into one folder"};
  } catch (const Error& error) {
    return {"programs", CheckState::kFailed, error.what(), "build or install onestep, onestep-coordinator and onestep-worker together"};
  }
}

DoctorCheck check_mpi(const DoctorOptions& options) {
  if (is_slurm(options)) {
    const ProgramResult list = run({"srun", "--mpi=list"});
    if (list.exit_status == 0 && list.output.find("pmix") != std::string::npos) {
      return {"MPI", CheckState::kOk, "srun starts ranks by PMIx"};
    }
    return {"MPI", CheckState::kFailed, "srun --mpi=list: no pmix: " + last_lines(list.output),
            "install Slurm with its PMIx plugin (Debian: slurm-client)"};
  }
  const ProgramResult mpirun = run({"mpirun", "--version"});
  if (mpirun.exit_status == 0 && mpirun.output.find("Open MPI") != std::string::npos) {
    return {"MPI", CheckState::kOk, first_line(mpirun.output)};
  }
  return {"MPI", CheckState::kFailed, "mpirun --version: " + last_lines(mpirun.output), "install Open MPI (Debian: openmpi-bin) and put mpirun in PATH"};
}

DoctorCheck check_slurm(const DoctorOptions& options) {
  if (!is_slurm(options)) return {"Slurm", CheckState::kSkipped, "not used by --launcher " + options.launcher};
  const ProgramResult ping = run({"scontrol", "ping"});
  if (ping.exit_status != 0) {
    return {"Slurm", CheckState::kFailed, "scontrol ping: " + last_lines(ping.output), "start slurmctld, or set SLURM_CONF"};
  }
  if (options.launcher == "slurm-step" && std::getenv("SLURM_JOB_ID") == nullptr) {
    return {"Slurm", CheckState::kFailed, "no allocation: SLURM_JOB_ID is not set", "run this under sbatch or salloc, or use --launcher slurm-batch"};
  }
  std::vector<std::string> words = {"sinfo", "--noheader", "--format=%D %t"};
  for (const std::string& option : options.slurm) {
    if (option.starts_with("partition=")) words.push_back("--" + option);
  }
  const ProgramResult nodes = run(words);
  if (nodes.exit_status != 0 || nodes.output.find_first_not_of(" \n") == std::string::npos) {
    return {"Slurm", CheckState::kFailed, "sinfo names no node: " + last_lines(nodes.output), "check the partition (--slurm partition=NAME)"};
  }
  return {"Slurm", CheckState::kOk, "nodes: " + last_lines(nodes.output)};
}

struct Unload {
  void operator()(void* library) const { ::dlclose(library); }
};
using Library = std::unique_ptr<void, Unload>;

bool has_gpus() {
  std::error_code ignored;
  return fs::exists("/dev/nvidia0", ignored) || fs::exists("/proc/driver/nvidia/version", ignored);
}

std::string cuda_version_text(int version) { return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10); }

DoctorCheck check_cuda() {
  constexpr int kNeeded = 13000;  // the runtime that libtorch brings
  const Library driver(::dlopen("libcuda.so.1", RTLD_NOW));
  if (!driver && !has_gpus()) return {"CUDA driver", CheckState::kSkipped, "no GPU here: jobs run on processors"};
  if (!driver) {
    return {"CUDA driver", CheckState::kFailed, "a GPU, but no libcuda.so.1", "install the NVIDIA driver; in a container start it with --gpus all"};
  }
  const auto init = reinterpret_cast<int (*)(unsigned)>(::dlsym(driver.get(), "cuInit"));
  const auto version_of = reinterpret_cast<int (*)(int*)>(::dlsym(driver.get(), "cuDriverGetVersion"));
  const auto count_of = reinterpret_cast<int (*)(int*)>(::dlsym(driver.get(), "cuDeviceGetCount"));
  int version = 0, count = 0;
  if (init == nullptr || version_of == nullptr || count_of == nullptr || version_of(&version) != 0) {
    return {"CUDA driver", CheckState::kFailed, "libcuda.so.1 does not answer", "install the NVIDIA driver anew"};
  }
  const int started = init(0);
  if (started != 0 || count_of(&count) != 0 || count == 0) {
    return {"CUDA driver", has_gpus() ? CheckState::kFailed : CheckState::kSkipped,
            "driver for CUDA " + cuda_version_text(version) + ", no usable GPU (cuInit " + std::to_string(started) + ")",
            "check nvidia-smi and CUDA_VISIBLE_DEVICES"};
  }
  const std::string found = std::to_string(count) + (count == 1 ? " GPU" : " GPUs") + ", driver for CUDA " + cuda_version_text(version);
  if (version < kNeeded) return {"CUDA driver", CheckState::kFailed, found, "install a driver for CUDA 13.0 or later"};
  return {"CUDA driver", CheckState::kOk, found};
}

DoctorCheck check_nccl() {
  if (!has_gpus()) return {"NCCL", CheckState::kSkipped, "no GPU here: ranks talk by MPI"};
  const Library nccl(::dlopen("libnccl.so.2", RTLD_NOW));
  const auto version_of = nccl ? reinterpret_cast<int (*)(int*)>(::dlsym(nccl.get(), "ncclGetVersion")) : nullptr;
  int version = 0;
  if (version_of == nullptr || version_of(&version) != 0) {
    return {"NCCL", CheckState::kWarning, "no libnccl.so.2 where the system looks",
            "needed for several GPUs unless the worker brings it: put it into LD_LIBRARY_PATH"};
  }
  return {"NCCL", CheckState::kOk, std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." + std::to_string(version % 100)};
}

std::string file_system_of(const std::string& folder) {
  static const std::map<long, const char*> kKinds = {{0xEF53, "ext4"},     {0x01021994, "tmpfs"},  {0x6969, "nfs"},
                                                     {0x58465342, "xfs"},  {0x9123683E, "btrfs"},  {0x794c7630, "overlay"},
                                                     {0x0BD00BD0, "lustre"}, {0x65735546, "fuse"}, {0x47504653, "gpfs"},
                                                     {0x2FC12FC1, "zfs"},  {0x01021997, "9p"},     {0x858458f6, "ramfs"}};
  struct statfs status{};
  if (::statfs(folder.c_str(), &status) != 0) return "?";
  const auto kind = kKinds.find(static_cast<long>(status.f_type));
  return kind != kKinds.end() ? kind->second : "another file system";
}

// A file that is removed at the end.
class Probe {
 public:
  explicit Probe(const std::string& folder) : path_(folder + "/.onestep-doctor-XXXXXX"), descriptor_(::mkstemp(path_.data())) {}
  Probe(const Probe&) = delete;
  Probe& operator=(const Probe&) = delete;
  ~Probe() {
    if (descriptor_ < 0) return;
    ::close(descriptor_);
    ::unlink(path_.c_str());
  }
  [[nodiscard]] int get() const { return descriptor_; }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
  int descriptor_;
};

std::vector<double> sync_times(int descriptor) {
  std::vector<double> seconds;
  const std::string block(4096, 'x');
  for (int i = 0; i < 10; ++i) {
    if (::pwrite(descriptor, block.data(), block.size(), i * 4096) != 4096) return {};
    const auto start = std::chrono::steady_clock::now();
    if (::fsync(descriptor) != 0) return {};
    seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return seconds;
}

DoctorCheck check_locks(const Probe& probe) {
  if (::flock(probe.get(), LOCK_EX | LOCK_NB) == 0) return {"locks", CheckState::kOk, "flock works in the data folder"};
  return {"locks", CheckState::kFailed, std::string("flock: ") + std::strerror(errno), "mount the data folder with locks (NFS: without nolock)"};
}

// The script's words come as arguments: nothing is quoted.
std::vector<std::string> probe_command(const DoctorOptions& options, const std::string& path, const std::string& worker) {
  const std::string ranks = std::to_string(options.ranks);
  std::vector<std::string> words;
  if (is_slurm(options)) {
    words = {"srun", "--mpi=none", "--ntasks=" + ranks, "--input=none"};
    if (options.launcher == "slurm-step") words.emplace_back("--overlap");
    for (const std::string& option : options.slurm) words.push_back("--" + option);
  } else {
    words = {"mpirun", "--allow-run-as-root", "--bind-to", "none"};
    if (options.launcher == "hostfile") {
      words.insert(words.end(), {"--hostfile", options.hostfile, "--map-by", "node"});
    } else {
      words.emplace_back("--oversubscribe");
    }
    words.insert(words.end(), {"-n", ranks});
  }
  const char* script =
      "seen=no; [ -f \"$1\" ] && seen=yes; "
      "echo \"probe ${OMPI_COMM_WORLD_RANK:-${SLURM_PROCID:-0}} $(hostname) $seen $(date +%s) $(\"$2\" --version 2>&1 | tail -n 1)\"";
  words.insert(words.end(), {"sh", "-c", script, "sh", path, worker});
  return words;
}

std::vector<DoctorCheck> check_ranks(const DoctorOptions& options, const std::string& path) {
  std::string worker;
  try {
    worker = sibling_program("onestep-worker");
  } catch (const Error& error) {
    return {{"ranks", CheckState::kSkipped, std::string("there is no program to start: ") + error.what()}};
  }
  const ProgramResult result = run(probe_command(options, path, worker));
  const std::vector<RankProbe> probes = parse_probes(result.output);
  if (probes.empty()) {
    return {{"ranks", CheckState::kFailed, "none started (exit status " + std::to_string(result.exit_status) + "): " + last_lines(result.output),
             "try the launcher by hand: " + std::string(is_slurm(options) ? "srun hostname" : "mpirun -n 2 hostname")}};
  }
  return judge_probes(probes, options.ranks, version_text());
}

DoctorCheck check_port(const std::string& listen) {
  const std::size_t colon = listen.rfind(':');
  if (colon == std::string::npos || colon == 0) {
    throw Error(ErrorCode::kUsage, "--listen: expected HOST:PORT, found \"" + listen + "\"");
  }
  std::string host = listen.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  if (const int error = ::getaddrinfo(host.c_str(), listen.substr(colon + 1).c_str(), &hints, &found); error != 0) {
    return {"port", CheckState::kFailed, listen + ": " + ::gai_strerror(error), "choose another --listen HOST:PORT"};
  }
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> address(found, &::freeaddrinfo);
  const int socket = ::socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int reuse = 1;
  ::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &reuse, sizeof reuse);
  const bool bound = ::bind(socket, address->ai_addr, address->ai_addrlen) == 0 && ::listen(socket, 1) == 0;
  const int cause = errno;
  ::close(socket);
  if (bound) return {"port", CheckState::kOk, listen + " is free"};
  return {"port", CheckState::kFailed, listen + ": " + std::strerror(cause), "stop what uses it, or choose another --listen HOST:PORT"};
}

DoctorCheck check_limits() {
  rlimit files{};
  ::getrlimit(RLIMIT_NOFILE, &files);
  const std::string found = std::to_string(files.rlim_max) + " open files";
  if (files.rlim_max >= 4096) return {"limits", CheckState::kOk, found};
  return {"limits", CheckState::kWarning, found, "allow 16384 (ulimit -Hn, LimitNOFILE=): each rank and each reader holds a connection"};
}

DoctorCheck check_shared_memory(int ranks) {
  struct statvfs status{};
  if (::statvfs("/dev/shm", &status) != 0) return {"shared memory", CheckState::kWarning, "no /dev/shm", "mount it: ranks of a host exchange through it"};
  const double mib = static_cast<double>(status.f_bavail) * static_cast<double>(status.f_frsize) / (1024.0 * 1024.0);
  const std::string found = std::to_string(static_cast<long>(mib)) + " MiB free in /dev/shm";
  if (mib >= 64.0 * ranks) return {"shared memory", CheckState::kOk, found};
  return {"shared memory", CheckState::kWarning, found, "make it larger (containers: shm_size), at least 64 MiB a rank"};
}

// The data folder, or the nearest one above it that is there.
std::string existing_folder(const std::string& data) {
  fs::path folder = fs::absolute(data).lexically_normal();
  std::error_code ignored;
  while (!fs::is_directory(folder, ignored) && folder.has_relative_path()) folder = folder.parent_path();
  return folder.string();
}

std::vector<DoctorCheck> check_folder(const DoctorOptions& options) {
  const std::string folder = existing_folder(options.data);
  const Probe probe(folder);
  if (probe.get() < 0) {
    return {{"data folder", CheckState::kFailed, folder + ": can't be written: " + std::strerror(errno), "choose another --data, or its owner"}};
  }
  std::vector<DoctorCheck> checks = {{"data folder", CheckState::kOk, folder + " on " + file_system_of(folder)}};
  checks.push_back(judge_fsync(sync_times(probe.get()), file_system_of(folder)));
  struct statvfs status{};
  ::statvfs(folder.c_str(), &status);
  checks.push_back(judge_space(static_cast<double>(status.f_bavail) * static_cast<double>(status.f_frsize) / kGib, options.free_gib));
  checks.push_back(check_locks(probe));
  for (DoctorCheck& check : check_ranks(options, probe.path())) checks.push_back(std::move(check));
  return checks;
}

}  // namespace

std::vector<DoctorCheck> examine(const DoctorOptions& options) {
  if (options.launcher == "hostfile" && options.hostfile.empty()) {
    throw Error(ErrorCode::kUsage, "--launcher hostfile: expected --hostfile FILE, found none");
  }
  std::vector<DoctorCheck> checks = {check_programs(), check_mpi(options), check_cuda(), check_nccl(), check_slurm(options)};
  for (DoctorCheck& check : check_folder(options)) checks.push_back(std::move(check));
  checks.push_back(check_port(options.listen));
  checks.push_back(check_shared_memory(options.ranks));
  checks.push_back(check_limits());
  return checks;
}

int print_examination(const DoctorOptions& options, bool json) {
  const std::vector<DoctorCheck> checks = examine(options);
  const auto number_of = [&](CheckState state) {
    return std::count_if(checks.begin(), checks.end(), [&](const DoctorCheck& check) { return check.state == state; });
  };
  const auto failed = number_of(CheckState::kFailed), warnings = number_of(CheckState::kWarning);
  if (json) {
    nlohmann::ordered_json list = nlohmann::ordered_json::array();
    for (const DoctorCheck& check : checks) {
      list.push_back({{"name", check.name}, {"state", state_name(check.state)}, {"found", check.found}, {"remedy", check.remedy}});
    }
    std::cout << nlohmann::ordered_json{{"checks", list}, {"failed", failed}, {"warnings", warnings}}.dump(
                     -1, ' ', false, nlohmann::ordered_json::error_handler_t::replace)
              << "\n";
  } else {
    std::vector<std::vector<std::string>> rows;
    for (const DoctorCheck& check : checks) {
      rows.push_back({state_name(check.state), check.name, check.found + (check.remedy.empty() || check.state == CheckState::kSkipped ? "" : "; " + check.remedy)});
    }
    std::cout << table(rows, 3);
    std::cout << (failed > 0 ? std::to_string(failed) + " failed" : "nothing stands in the way of a run")
              << (warnings > 0 ? ", " + std::to_string(warnings) + (warnings == 1 ? " warning" : " warnings") : "") << "\n";
  }
  return failed > 0 ? exit_status(ErrorCode::kConflict) : 0;
}

}  // namespace onestep
