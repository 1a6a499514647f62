// A process of its own that looks at something hostile: it can read and report, and nothing else.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace onestep {

struct LockedChildLimits {
  int time_s = 10;                                  // of processor; and one more on the wall's clock
  std::uint64_t memory_bytes = std::uint64_t{1} << 30;  // beyond what this process has
};

// How it ended.
struct LockedChildEnd {
  enum class How {
    kReported,  // `look` returned
    kBusy,      // its time was over
    kDied,      // of `signal`
  };
  How how = How::kReported;
  int signal = 0;
  std::string report;  // what `look` returned
};

// Forks a child that takes from itself the network, writing to files, starting programs and processes, signals to others, memory and
// time beyond the limits, and core files; then calls `look` there and hands back its text of at most 4,000 bytes. `look` runs beside
// locks that other threads hold for ever: it must neither log nor throw. `what` names the thing in errors.
// Errors: kIo when there is no process to be had, or none that can lock itself in.
LockedChildEnd look_in_locked_child(const std::string& what, const LockedChildLimits& limits, const std::function<std::string()>& look);

// In the child: from now on it can open no file either.
void forbid_opening();

}  // namespace onestep
