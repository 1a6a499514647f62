// Starts, watches and ends the processes of one attempt; how depends on the machine.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace onestep {

struct LaunchRequest {
  std::string job;  // id
  int attempt = 0;
  int ranks = 1;
  std::string run_folder;        // job.json is in it
  std::string coordinator_file;  // workers find the telemetry listener through it
  bool background = false;       // an evaluation beside a full host: lower priority
};

// A process that can be found again by a coordinator that was restarted.
struct ProcessIdentity {
  std::int64_t pid = 0;
  std::int64_t start_time = 0;  // field 22 of /proc/PID/stat
};

struct ProcessEnd {
  bool clean = false;       // exit status 0
  std::string description;  // "mpirun ended by signal 9 (Killed)", for people
};

// One thread (the coordinator's).
class Launcher {
 public:
  virtual ~Launcher() = default;
  // Errors: kNotFound when a program is missing, kIo when the system refuses.
  virtual ProcessIdentity launch(const LaunchRequest& request) = 0;
  // nullopt: it runs. Asked after the end, it gives an end again.
  virtual std::optional<ProcessEnd> poll(const ProcessIdentity& process) = 0;
  // A process of this attempt that was launched before its identity could be recorded.
  virtual std::optional<ProcessIdentity> find(const LaunchRequest& request) = 0;
  virtual void terminate(const ProcessIdentity& process) = 0;  // asks politely; gone is fine
  // Ends every process of the attempt at once, whoever its parent is; returns how many there were.
  virtual int kill_all(const LaunchRequest& request) = 0;
};

}  // namespace onestep
