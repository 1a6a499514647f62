// Launches attempts with `mpirun` on the hosts of a file, which Open MPI reaches by ssh.
#pragma once

#include <string>
#include <vector>

#include "coordinator/launcher/child_launcher.h"

namespace onestep {

// A line of a hostfile as Open MPI reads it: "node1 slots=4"; without slots, one.
struct HostSlots {
  std::string host;
  int slots = 1;
};
// Blank lines and what follows a '#' are skipped. Errors: kNotFound; kConfig naming the line, for a host named twice, no
// host at all, or a key other than slots and max_slots.
std::vector<HostSlots> read_hostfile(const std::string& path);

struct HostfileMpirunOptions {
  std::string worker;  // absolute path of onestep-worker, the same on all hosts
  std::string hostfile;
  std::string mpirun = "mpirun";
};

// Slots are the file's, read anew for every decision: a host taken out of it is given no further work. Open MPI reaches
// hosts by ssh without a password (OMPI_MCA_plm_rsh_agent names another program).
class HostfileMpirun : public ChildLauncher {
 public:
  // Errors: those of read_hostfile.
  explicit HostfileMpirun(HostfileMpirunOptions options);
  [[nodiscard]] std::string name() const override { return "hostfile"; }
  [[nodiscard]] std::vector<std::string> command(const LaunchRequest& request) const override;
  std::optional<Capacity> capacity(int configured) override;
  [[nodiscard]] double unnoticed_loss_s() const override { return 60; }

 private:
  HostfileMpirunOptions options_;
};

}  // namespace onestep
