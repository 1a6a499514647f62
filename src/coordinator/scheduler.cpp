#include "coordinator/scheduler.h"

#include <algorithm>

namespace onestep {
namespace {

std::string count(int number, const std::string& thing) {
  return std::to_string(number) + " " + thing + (number == 1 ? "" : "s");
}

// One line of jobs for the slots of the host.
class SlotQueue {
 public:
  SlotQueue(const std::vector<RunningJob>& running, int slots, double now)
      : slots_(slots), now_(now) {
    for (const RunningJob& job : running) {
      if (!job.evaluation) used_ += job.ranks;
    }
  }

  Decision decide(const ReadyJob& job) {
    if (!held_by_.empty()) return {job.id, false, "behind " + held_by_ + ", which comes first"};
    if (job.not_before > now_) return hold(job, "waits a moment before the restart");
    if (job.ranks > slots_) {
      if (used_ > 0) {
        return hold(job, "has more ranks than the host has slots (" + std::to_string(job.ranks) +
                             " > " + std::to_string(slots_) + ") and waits to run alone");
      }
      used_ = job.ranks;
      return {job.id, true,
              "runs alone, oversubscribed: " + count(job.ranks, "rank") + " on " +
                  count(slots_, "slot")};
    }
    if (used_ + job.ranks > slots_) {
      return hold(job, "waits for " + count(job.ranks, "slot") + "; " +
                           std::to_string(std::max(0, slots_ - used_)) + " of " +
                           std::to_string(slots_) + " free");
    }
    used_ += job.ranks;
    return {job.id, true, "holds " + std::to_string(job.ranks) + " of " + count(slots_, "slot")};
  }

 private:
  Decision hold(const ReadyJob& job, const std::string& reason) {
    held_by_ = job.id;
    return {job.id, false, reason};
  }

  int slots_;
  double now_;
  int used_ = 0;
  std::string held_by_;
};

// One automatic evaluation at a time.
class EvaluationQueue {
 public:
  EvaluationQueue(const std::vector<RunningJob>& running, double now) : now_(now) {
    for (const RunningJob& job : running) {
      if (job.evaluation) held_by_ = job.id;
    }
  }

  Decision decide(const ReadyJob& job) {
    if (!held_by_.empty()) return {job.id, false, "waits for the evaluation " + held_by_};
    held_by_ = job.id;
    if (job.not_before > now_) return {job.id, false, "waits a moment before the restart"};
    return {job.id, true, "runs beside the host's jobs at low priority"};
  }

 private:
  double now_;
  std::string held_by_;
};

}  // namespace

std::vector<Decision> schedule(std::vector<ReadyJob> ready, const std::vector<RunningJob>& running,
                               int slots, double now) {
  std::sort(ready.begin(), ready.end(),
            [](const ReadyJob& a, const ReadyJob& b) { return a.number < b.number; });
  SlotQueue queue(running, slots, now);
  EvaluationQueue evaluations(running, now);
  std::vector<Decision> decisions;
  for (const ReadyJob& job : ready) {
    decisions.push_back(job.evaluation ? evaluations.decide(job) : queue.decide(job));
  }
  return decisions;
}

}  // namespace onestep
