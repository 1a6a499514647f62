// Launches attempts on this machine with `mpirun`, each in a session of its own.
#pragma once

#include <string>
#include <vector>

#include "coordinator/launcher/child_launcher.h"

namespace onestep {

struct LocalMpirunOptions {
  std::string worker;             // absolute path of onestep-worker
  std::string mpirun = "mpirun";  // searched in PATH
  int cores = 1;                  // more ranks than this yield while they wait
};

class LocalMpirun : public ChildLauncher {
 public:
  explicit LocalMpirun(LocalMpirunOptions options);
  [[nodiscard]] std::vector<std::string> command(const LaunchRequest& request) const override;

 protected:
  [[nodiscard]] std::vector<std::string> environment(const LaunchRequest& request) const override;

 private:
  LocalMpirunOptions options_;
};

}  // namespace onestep
