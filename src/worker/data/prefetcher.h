// Makes the next items in a thread of its own while the caller works on the last one; bounded.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>

namespace onestep {

// next() returns produce(0), produce(1), ... in that order; at most `depth` items wait, one more is
// being made. produce runs in one thread, one call at a time. One thread calls next(). The
// destructor waits for the call in progress.
template <typename Item>
class Prefetcher {
 public:
  explicit Prefetcher(std::function<Item(std::int64_t)> produce, std::size_t depth = 2)
      : produce_(std::move(produce)), depth_(depth), thread_([this] { run(); }) {}
  Prefetcher(const Prefetcher&) = delete;
  Prefetcher& operator=(const Prefetcher&) = delete;
  ~Prefetcher() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

  // The next item. Errors: what produce threw for this item, now and at every later call.
  Item next() {
    const auto start = std::chrono::steady_clock::now();
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !items_.empty() || error_; });
    waited_s_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (items_.empty()) std::rethrow_exception(error_);
    Item item = std::move(items_.front());
    items_.pop_front();
    lock.unlock();
    changed_.notify_all();
    return item;
  }

  // Seconds that next() has stood waiting, in all.
  [[nodiscard]] double waited_s() const { return waited_s_; }

 private:
  void run() {
    for (std::int64_t sequence = 0;; ++sequence) {
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return stopping_ || items_.size() < depth_; });
        if (stopping_) return;
      }
      try {
        Item item = produce_(sequence);
        const std::lock_guard lock(mutex_);
        items_.push_back(std::move(item));
      } catch (...) {
        const std::lock_guard lock(mutex_);
        error_ = std::current_exception();
      }
      changed_.notify_all();
      const std::lock_guard lock(mutex_);
      if (error_) return;
    }
  }

  std::function<Item(std::int64_t)> produce_;
  std::size_t depth_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Item> items_;
  std::exception_ptr error_;
  bool stopping_ = false;
  double waited_s_ = 0;
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace onestep
