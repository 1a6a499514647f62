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
  std::string place = {};       // what the launcher knows it by beyond this host; "": nothing
};

struct ProcessEnd {
  bool clean = false;       // exit status 0
  std::string description;  // "mpirun ended by signal 9 (Killed)", for people
  bool refused = false;        // it never ran and would be refused again
  bool machine_fault = false;  // preempted, or its node is gone: nothing is counted against the job
};

// What there is for ranks to run on.
struct Capacity {
  int slots = 0;              // ranks at a time
  bool oversubscribe = true;  // a job with more ranks may run alone all the same
};

// One thread (the coordinator's). No call waits for a batch system for longer than a few seconds.
class Launcher {
 public:
  virtual ~Launcher() = default;
  // "local", "hostfile", "slurm-step", "slurm-batch": kept with an attempt.
  [[nodiscard]] virtual std::string name() const { return "local"; }
  // Errors: kNotFound when a program is missing, kIo when the system refuses.
  virtual ProcessIdentity launch(const LaunchRequest& request) = 0;
  // nullopt: it runs. Asked after the end, it gives an end again.
  virtual std::optional<ProcessEnd> poll(const ProcessIdentity& process) = 0;
  // A process of this attempt that was launched before its identity could be recorded.
  virtual std::optional<ProcessIdentity> find(const LaunchRequest& request) = 0;
  virtual void terminate(const ProcessIdentity& process) = 0;  // asks politely; gone is fine
  // Ends every process of the attempt at once, whoever its parent is; returns how many there were.
  virtual int kill_all(const LaunchRequest& request) = 0;

  // `configured`: slots that the operator named, 0: none. nullopt: not known now; ask again.
  virtual std::optional<Capacity> capacity(int configured) {
    return Capacity{configured, true};
  }
  // Whether the next answer of capacity() may be another although nothing was launched and nothing ended: nodes come and go.
  [[nodiscard]] virtual bool capacity_varies() const { return false; }
  // Where a batch system has it, for people: "Slurm job 17 is pending (Resources)"; "": nothing to say.
  virtual std::string whereabouts(const ProcessIdentity&) { return ""; }
  // It waits in a batch system's queue: there are no ranks that could save.
  virtual bool is_pending(const ProcessIdentity&) { return false; }
  // How long a host that is gone may still be given work, s: attempts that never started in that
  // time are the machine's fault.
  [[nodiscard]] virtual double unnoticed_loss_s() const { return 0; }
};

}  // namespace onestep
