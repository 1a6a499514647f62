// What the coordinator's program is started for by the command line: to serve, or to look after a data folder.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace onestep {

// Empty texts and zeros: the coordinator's defaults.
struct UpOptions {
  std::string data = "onestep-data";
  std::string listen = "127.0.0.1:8080";
  int slots = 0;
  bool stop_workers = false;
  bool resume_stopped = false;
  std::string log_format;
  std::int64_t queue = 0;
  std::string tls, auth;
  std::vector<std::string> roots;
  std::string launcher, hostfile, telemetry;
  std::vector<std::string> slurm;
  int ranks_per_node = 0;
};

struct DataToolOptions {
  std::string data;  // "": onestep-data
  std::string role, label, expires, out, id;
};

std::string absolute_path(const std::string& path);

// Both become the other program. Errors: kNotFound when it is missing.
[[noreturn]] void start_coordinator(const UpOptions& options);
// `words`: the tool, {"token", "add"}.
[[noreturn]] void start_data_tool(const std::vector<std::string>& words, const DataToolOptions& options, bool json);

}  // namespace onestep
