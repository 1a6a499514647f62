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
  SlotQueue(const std::vector<RunningJob>& running, int slots, double now, bool oversubscribe)
      : slots_(slots), now_(now), oversubscribe_(oversubscribe) {
    for (const RunningJob& job : running) {
      if (!job.evaluation) used_ += job.ranks;
    }
  }

  Decision decide(const ReadyJob& job) {
    if (held_) return {job.id, false, kBehindOthers, 0};
    if (job.not_before > now_) return hold(job, "waits a moment before the restart");
    if (job.ranks > slots_ && !oversubscribe_) return decide_fewer(job);
    if (job.ranks > slots_) {
      if (used_ > 0) {
        return hold(job, "has more ranks than the host has slots (" + std::to_string(job.ranks) +
                             " > " + std::to_string(slots_) + ") and waits to run alone");
      }
      used_ = job.ranks;
      return {job.id, true,
              "runs alone, oversubscribed: " + count(job.ranks, "rank") + " on " +
                  count(slots_, "slot"),
              job.ranks};
    }
    return decide_fitting(job, job.ranks);
  }

 private:
  Decision decide_fitting(const ReadyJob& job, int ranks) {
    if (used_ + ranks > slots_) {
      return hold(job, "waits for " + count(ranks, "slot") + "; " +
                           std::to_string(std::max(0, slots_ - used_)) + " of " +
                           std::to_string(slots_) + " free");
    }
    used_ += ranks;
    const std::string fewer = ranks < job.ranks ? ", fewer than the " + std::to_string(job.ranks) + " it asks for" : "";
    return {job.id, true, "holds " + std::to_string(ranks) + " of " + count(slots_, "slot") + fewer, ranks};
  }

  Decision decide_fewer(const ReadyJob& job) {
    for (const int ranks : job.fewer_ranks) {
      if (ranks <= slots_) return decide_fitting(job, ranks);
    }
    return hold(job, "has more ranks than there are slots (" + std::to_string(job.ranks) + " > " + std::to_string(slots_) +
                         ") and can't run on so few");
  }

  Decision hold(const ReadyJob& job, const std::string& reason) {
    held_ = true;
    return {job.id, false, reason, 0};
  }

  int slots_;
  double now_;
  bool oversubscribe_;
  int used_ = 0;
  bool held_ = false;
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
    if (!held_by_.empty()) return {job.id, false, "waits for the evaluation " + held_by_, 0};
    held_by_ = job.id;
    if (job.not_before > now_) return {job.id, false, "waits a moment before the restart", 0};
    return {job.id, true, "runs beside the host's jobs at low priority", job.ranks};
  }

 private:
  double now_;
  std::string held_by_;
};

}  // namespace

std::vector<Decision> schedule(std::vector<ReadyJob> ready, const std::vector<RunningJob>& running,
                               int slots, double now, bool oversubscribe) {
  std::sort(ready.begin(), ready.end(),
            [](const ReadyJob& a, const ReadyJob& b) { return a.number < b.number; });
  SlotQueue queue(running, slots, now, oversubscribe);
  EvaluationQueue evaluations(running, now);
  std::vector<Decision> decisions;
  for (const ReadyJob& job : ready) {
    decisions.push_back(job.evaluation ? evaluations.decide(job) : queue.decide(job));
  }
  return decisions;
}

std::vector<int> fewer_ranks(const JobSpec& spec) {
  const bool training = is_training_kind(spec.kind);
  std::vector<int> counts;
  if (training && spec.reduction != "exact") return counts;
  for (int ranks = spec.ranks - 1; ranks >= 1; --ranks) {
    const bool power_of_two = (ranks & (ranks - 1)) == 0;
    if (!training || (power_of_two && spec.micro_batches % ranks == 0)) counts.push_back(ranks);
  }
  return counts;
}

}  // namespace onestep
