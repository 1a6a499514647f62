// Times work of a device by the clock on the wall, from an idle device to an idle device.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>

#include "worker/tensors/device_part.h"

namespace onestep {

using BenchClock = std::chrono::steady_clock;

inline double seconds_since(BenchClock::time_point start) { return std::chrono::duration<double>(BenchClock::now() - start).count(); }

struct Timing {
  double seconds_each = 0;
  std::int64_t count = 0;
};

// `each` over and over for about `seconds`, the device at most `ahead` of them behind.
inline Timing time_work(const std::function<void()>& each, double seconds, std::int64_t ahead = 8) {
  synchronize_device();
  const auto start = BenchClock::now();
  std::int64_t count = 0;
  do {
    for (std::int64_t i = 0; i < ahead; ++i) each();
    synchronize_device();
    count += ahead;
  } while (seconds_since(start) < seconds);
  return {seconds_since(start) / static_cast<double>(count), count};
}

}  // namespace onestep
