// Attempts whose launching program (mpirun, srun) is a child of the coordinator while both live.
#pragma once

#include <string>
#include <vector>

#include "coordinator/launcher/children.h"

namespace onestep {

// The program outlives the coordinator; it writes to a log file, never to a pipe. Every process of an
// attempt carries the attempt's mark: ranks lead process groups of their own, so this is how those on
// this host are found whose launching program is gone.
class ChildLauncher : public Launcher {
 public:
  // Becomes the parent of orphaned ranks. Reaps all children of this program. `worker`: absolute path.
  explicit ChildLauncher(std::string worker) : worker_(std::move(worker)) {}

  ProcessIdentity launch(const LaunchRequest& request) override;
  std::optional<ProcessEnd> poll(const ProcessIdentity& process) override;
  std::optional<ProcessIdentity> find(const LaunchRequest& request) override;
  void terminate(const ProcessIdentity& process) override;
  int kill_all(const LaunchRequest& request) override;

  // The command line of an attempt; the first word is searched in PATH.
  [[nodiscard]] virtual std::vector<std::string> command(const LaunchRequest& request) const = 0;

 protected:
  // The worker and its arguments, as they end a command.
  [[nodiscard]] std::vector<std::string> worker_command(const LaunchRequest& request) const;
  // KEY=value each, beside the mark.
  [[nodiscard]] virtual std::vector<std::string> environment(const LaunchRequest& request) const;
  Children& children() { return children_; }

 private:
  std::string worker_;
  Children children_;
};

}  // namespace onestep
