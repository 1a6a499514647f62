#include "coordinator/launcher/hostfile_mpirun.h"

#include <algorithm>
#include <charconv>
#include <sstream>

#include "common/durable_file.h"
#include "common/error.h"

namespace onestep {
namespace {

constexpr int kMaxSlots = 4096;  // of a host

Error wrong_line(const std::string& path, int number, const std::string& what) {
  return Error(ErrorCode::kConfig, path + ": line " + std::to_string(number) + ": " + what);
}

int slots_of(const std::string& text, const std::string& path, int number) {
  int slots = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), slots);
  if (error != std::errc() || end != text.data() + text.size() || slots < 1 || slots > kMaxSlots) {
    throw wrong_line(path, number, "slots: expected 1 to " + std::to_string(kMaxSlots) + ", found \"" + text + "\"");
  }
  return slots;
}

}  // namespace

std::vector<HostSlots> read_hostfile(const std::string& path) {
  std::vector<HostSlots> hosts;
  std::istringstream lines(read_file(path));
  int number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    std::istringstream words(line.substr(0, line.find('#')));
    HostSlots host;
    if (!(words >> host.host)) continue;
    for (std::string word; words >> word;) {
      const std::size_t equals = word.find('=');
      const std::string key = word.substr(0, equals);
      const std::string value = equals == std::string::npos ? "" : word.substr(equals + 1);
      if (key == "slots") {
        host.slots = slots_of(value, path, number);
      } else if (key != "max_slots") {
        throw wrong_line(path, number, "expected HOST [slots=N] [max_slots=N], found \"" + word + "\"");
      }
    }
    const bool twice = std::any_of(hosts.begin(), hosts.end(), [&](const HostSlots& other) { return other.host == host.host; });
    if (twice) throw wrong_line(path, number, host.host + " is named twice");
    hosts.push_back(host);
  }
  if (hosts.empty()) throw Error(ErrorCode::kConfig, path + ": expected a host a line, found none");
  return hosts;
}

HostfileMpirun::HostfileMpirun(HostfileMpirunOptions options)
    : ChildLauncher(options.worker), options_(std::move(options)) {
  read_hostfile(options_.hostfile);
}

std::vector<std::string> HostfileMpirun::command(const LaunchRequest& request) const {
  std::vector<std::string> command = {options_.mpirun, "--allow-run-as-root", "--hostfile", options_.hostfile};
  // Ranks stand one behind the other on a host, so that the first rounds of the sum stay inside it.
  command.insert(command.end(), {"--map-by", "slot", "--bind-to", "none"});
  // Evaluations run beside a full host.
  if (request.background) command.emplace_back("--oversubscribe");
  // Open MPI carries only its own variables to other hosts.
  std::vector<std::string> carried = environment(request);
  carried.push_back(attempt_mark(request));
  for (const std::string& variable : carried) {
    const std::string name = variable.substr(0, variable.find('='));
    if (name != "HOME" && name != "TMPDIR" && !name.starts_with("OMPI_")) {
      command.insert(command.end(), {"-x", name});
    }
  }
  command.insert(command.end(), {"-n", std::to_string(request.ranks)});
  for (std::string& word : worker_command(request)) command.push_back(std::move(word));
  return command;
}

std::optional<Capacity> HostfileMpirun::capacity(int configured) {
  int slots = 0;
  for (const HostSlots& host : read_hostfile(options_.hostfile)) slots += host.slots;
  if (configured > 0) slots = std::min(slots, configured);
  return Capacity{slots, false};
}

}  // namespace onestep
