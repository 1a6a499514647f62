// Says before a run whether this machine, or this cluster, has what it will need; each fault with its remedy.
#pragma once

#include <nlohmann/json.hpp>

#include <cstdint>
#include <string>
#include <vector>

namespace onestep {

struct DoctorOptions {
  std::string data = "onestep-data";
  std::string listen = "127.0.0.1:8080";
  std::string launcher = "local";  // as of `onestep up`
  std::string hostfile;
  std::vector<std::string> slurm;  // KEY=VALUE
  int ranks = 2;                   // that are started to look at the shared folder
  double free_gib = 10;            // that a run is thought to need
};

enum class CheckState { kOk, kWarning, kFailed, kSkipped };

struct DoctorCheck {
  std::string name;
  CheckState state = CheckState::kOk;
  std::string found;
  std::string remedy = {};  // of a warning or failure
};

// Starts `ranks` short processes with the launcher's program; writes and removes probes in the data folder, or in the folder that
// it would be made in. Errors: kUsage for a launcher or address that is none.
std::vector<DoctorCheck> examine(const DoctorOptions& options);

// One line of each rank's probe: "probe RANK HOST SEEN UNIX_SECONDS VERSION"; other lines are the programs' own.
struct RankProbe {
  int rank = 0;
  std::string host;
  bool sees_folder = false;
  std::int64_t clock_s = 0;
  std::string version;
};
std::vector<RankProbe> parse_probes(const std::string& output);
// What the ranks say about the folder, the clocks and the program on their hosts, beside this program's version.
std::vector<DoctorCheck> judge_probes(const std::vector<RankProbe>& probes, int ranks, const std::string& own_version);

// What the times of `fsync` (s) and the file system's kind tell: "ext4", "tmpfs", ...
DoctorCheck judge_fsync(std::vector<double> seconds, const std::string& file_system);
DoctorCheck judge_space(double free_gib, double wanted_gib);

// Prints a line each, or {"checks": [{name, state, found, remedy}], "failed", "warnings"}; exit status 0, or 8 when one has failed.
int print_examination(const DoctorOptions& options, bool json);

}  // namespace onestep
