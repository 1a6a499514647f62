// For coordinators whose processes don't matter: what is launched runs for ever.
#pragma once

#include <optional>

#include "coordinator/launcher/launcher.h"

namespace onestep {

class IdleLauncher : public Launcher {
 public:
  ProcessIdentity launch(const LaunchRequest&) override { return {4711, 1}; }
  std::optional<ProcessEnd> poll(const ProcessIdentity&) override { return std::nullopt; }
  std::optional<ProcessIdentity> find(const LaunchRequest&) override { return std::nullopt; }
  void terminate(const ProcessIdentity&) override {}
  int kill_all(const LaunchRequest&) override { return 0; }
};

}  // namespace onestep
