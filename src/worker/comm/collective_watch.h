// Which of the collectives that were started is stuck: devices run them one after another, and the first one that does not end tells who waits for whom.
#pragma once

#include <chrono>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <string>

namespace onestep {

// Time is passed in. Any thread.
class CollectiveWatch {
 public:
  using Clock = std::chrono::steady_clock;

  // limit: how long a collective may take after the one before it has ended.
  CollectiveWatch(int rank, int size, Clock::duration limit) : rank_(rank), size_(size), limit_(limit) {}

  // `done` is asked from poll().
  void started(std::string name, Clock::time_point now, std::function<bool()> done);
  // Forgets what has ended. The message about the first one that has not and is over its limit: its number, its name, this rank, what waits behind it.
  [[nodiscard]] std::optional<std::string> poll(Clock::time_point now);
  [[nodiscard]] std::size_t num_pending();

 private:
  struct Entry {
    std::int64_t number = 0;
    std::string name;
    std::function<bool()> done;
  };

  int rank_, size_;
  Clock::duration limit_;
  std::mutex mutex_;
  std::deque<Entry> pending_;
  Clock::time_point first_since_;
  std::int64_t num_started_ = 0;
};

}  // namespace onestep
