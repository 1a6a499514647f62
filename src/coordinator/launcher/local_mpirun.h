// Launches attempts on this machine with `mpirun`, each in a session of its own.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "coordinator/launcher/launcher.h"

namespace onestep {

struct LocalMpirunOptions {
  std::string worker;             // absolute path of onestep-worker
  std::string mpirun = "mpirun";  // searched in PATH
  int cores = 1;                  // more ranks than this yield while they wait
};

// The worker program that lies beside the running program.
std::string worker_beside_this_program();

// `source` (KEY=value each) cut down to what workers may see: PATH, HOME, LANG, LC_ALL,
// LD_LIBRARY_PATH, TMPDIR, ONESTEP_* but ONESTEP_TOKEN*, OMPI_MCA_*, OMPI_ALLOW_*.
std::vector<std::string> allowed_environment(const std::vector<std::string>& source);

// mpirun outlives the coordinator; it writes to a log file, never to a pipe. Every process of an
// attempt carries ONESTEP_ATTEMPT_ID=<run folder>#<attempt> in its environment: ranks lead process
// groups of their own, so this is how those are found whose mpirun is gone.
class LocalMpirun : public Launcher {
 public:
  // Becomes the parent of orphaned ranks, so that none stays a zombie. Reaps all children of this
  // program.
  explicit LocalMpirun(LocalMpirunOptions options);

  ProcessIdentity launch(const LaunchRequest& request) override;
  std::optional<ProcessEnd> poll(const ProcessIdentity& process) override;
  std::optional<ProcessIdentity> find(const LaunchRequest& request) override;
  void terminate(const ProcessIdentity& process) override;
  int kill_all(const LaunchRequest& request) override;

  // The command line of an attempt, for tests and logs.
  [[nodiscard]] std::vector<std::string> command(const LaunchRequest& request) const;

 private:
  void reap();

  LocalMpirunOptions options_;
  std::map<std::int64_t, ProcessIdentity> children_;  // by pid
  std::map<std::int64_t, ProcessEnd> ends_;           // of children, by pid
};

}  // namespace onestep
