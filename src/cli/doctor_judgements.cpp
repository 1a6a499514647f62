// What the doctor makes of what was measured and of what the ranks said. Pure.
#include "cli/doctor.h"

#include <algorithm>
#include <cstdio>
#include <set>
#include <sstream>

namespace onestep {
namespace {

constexpr std::int64_t kMaxClockDifference_s = 5;

}  // namespace

std::vector<RankProbe> parse_probes(const std::string& output) {
  std::vector<RankProbe> probes;
  std::istringstream lines(output);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string word, seen;
    RankProbe probe;
    if (!(words >> word >> probe.rank >> probe.host >> seen >> probe.clock_s) || word != "probe") continue;
    probe.sees_folder = seen == "yes";
    std::getline(words >> std::ws, probe.version);
    probes.push_back(probe);
  }
  return probes;
}

std::vector<DoctorCheck> judge_probes(const std::vector<RankProbe>& probes, int ranks, const std::string& own_version) {
  std::set<std::string> hosts, blind, other;
  std::int64_t first = probes.front().clock_s, last = first;
  for (const RankProbe& probe : probes) {
    hosts.insert(probe.host);
    if (!probe.sees_folder) blind.insert(probe.host);
    if (probe.version != "onestep-worker " + own_version) other.insert(probe.host + " (\"" + probe.version + "\")");
    first = std::min(first, probe.clock_s);
    last = std::max(last, probe.clock_s);
  }
  const auto list = [](const std::set<std::string>& names) {
    std::string text;
    for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
    return text;
  };
  std::vector<DoctorCheck> checks;
  const auto add = [&](const char* name, bool good, CheckState bad, const std::string& found, const std::string& remedy) {
    checks.push_back({name, good ? CheckState::kOk : bad, found, good ? "" : remedy});
  };
  add("ranks", static_cast<int>(probes.size()) == ranks, CheckState::kFailed,
      std::to_string(probes.size()) + " of " + std::to_string(ranks) + " started, on " + list(hosts), "look at the launcher's messages: start it by hand");
  add("shared folder", blind.empty(), CheckState::kFailed, blind.empty() ? "seen from every rank" : "not seen from " + list(blind),
      "put --data on a file system that all hosts mount under the same path");
  add("worker on all hosts", other.empty(), CheckState::kFailed, other.empty() ? own_version : "another or none on " + list(other),
      "install the same build under the same path on every host");
  add("clocks", last - first <= kMaxClockDifference_s, CheckState::kWarning,
      std::to_string(last - first) + " s apart", "nothing depends on it but the times in logs: run an NTP client");
  return checks;
}

DoctorCheck judge_fsync(std::vector<double> seconds, const std::string& file_system) {
  constexpr double kTooFast_s = 20e-6;  // a device that keeps what it says takes longer
  constexpr double kSlow_s = 0.1;
  if (seconds.empty()) return {"fsync", CheckState::kFailed, "fails", "choose another --data: nothing that is told would be kept"};
  std::sort(seconds.begin(), seconds.end());
  const double median = seconds[seconds.size() / 2];
  char time[32];
  std::snprintf(time, sizeof time, "%.2f ms", median * 1e3);
  const std::string found = std::string(time) + " on " + file_system;
  if (file_system == "tmpfs" || file_system == "ramfs") {
    return {"fsync", CheckState::kWarning, found + ", which is memory", "everything is lost with the machine's power: put --data on a disk"};
  }
  if (median < kTooFast_s) {
    return {"fsync", CheckState::kWarning, found + ": too fast to be true", "see whether the disk or mount ignores it (volatile overlay, eatmydata, nobarrier)"};
  }
  if (median > kSlow_s) return {"fsync", CheckState::kWarning, found, "every submission and checkpoint waits for it: use a faster disk"};
  return {"fsync", CheckState::kOk, found};
}

DoctorCheck judge_space(double free_gib, double wanted_gib) {
  char found[64];
  std::snprintf(found, sizeof found, "%.1f GiB free", free_gib);
  if (free_gib >= wanted_gib) return {"free space", CheckState::kOk, found};
  const std::string remedy = "free some, or choose another --data; 'onestep plan' says what a pipeline's pairs and checkpoints take";
  return {"free space", free_gib < 1 ? CheckState::kFailed : CheckState::kWarning, found, remedy};
}

}  // namespace onestep
