#include "worker/comm/collective_watch.h"

#include <utility>

namespace onestep {

void CollectiveWatch::started(std::string name, Clock::time_point now, std::function<bool()> done) {
  const std::lock_guard lock(mutex_);
  if (pending_.empty()) first_since_ = now;
  pending_.push_back({num_started_++, std::move(name), std::move(done)});
}

std::optional<std::string> CollectiveWatch::poll(Clock::time_point now) {
  const std::lock_guard lock(mutex_);
  while (!pending_.empty() && pending_.front().done()) {
    pending_.pop_front();
    first_since_ = now;
  }
  if (pending_.empty() || now - first_since_ < limit_) return std::nullopt;
  const Entry& stuck = pending_.front();
  return "collective " + std::to_string(stuck.number) + " (" + stuck.name + ") on rank " + std::to_string(rank_) + " of " + std::to_string(size_) +
         " has not ended after " + std::to_string(std::chrono::duration_cast<std::chrono::seconds>(now - first_since_).count()) + " s; " +
         std::to_string(pending_.size() - 1) + " wait behind it; a rank that never reached it is on another iteration, or gone";
}

std::size_t CollectiveWatch::num_pending() {
  const std::lock_guard lock(mutex_);
  return pending_.size();
}

}  // namespace onestep
