#include "coordinator/rank_watchdog.h"

#include <algorithm>
#include <cstdio>

namespace onestep {
namespace {

constexpr double kStalledSteps = 20;   // an iteration may take so many times its usual time: checkpoints, a busy file system
constexpr double kMissingTimes = 4;    // starting takes longer than a heartbeat: libraries and data are read before the hello

std::string seconds(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.0f s", value);
  return text;
}

std::string name_of(int rank) { return "rank " + std::to_string(rank); }

}  // namespace

const std::vector<std::string>& rank_alarm_codes() {
  static const std::vector<std::string> codes = {"rank_missing", "rank_silent", "rank_stalled", "rank_straggling"};
  return codes;
}

std::vector<RankTrouble> RankWatchdog::look(const WatchedAttempt& attempt, const HealthSpec& bounds, double now) {
  Seen& seen = jobs_[attempt.job];
  if (seen.attempt != attempt.attempt) {
    seen = {};
    seen.attempt = attempt.attempt;
  }
  std::vector<RankTrouble> found;

  const double missing_after = kMissingTimes * bounds.silent_s;
  const int missing = attempt.num_ranks - static_cast<int>(attempt.ranks.size());
  if (bounds.silent_s > 0 && missing > 0 && now - attempt.launched >= missing_after) {
    std::string who;
    for (int rank = 0; rank < attempt.num_ranks && who.size() < 100; ++rank) {
      const bool is_there = std::any_of(attempt.ranks.begin(), attempt.ranks.end(),
                                        [rank](const WorkerRecord& one) { return one.rank == rank; });
      if (!is_there) who += (who.empty() ? "" : ", ") + std::to_string(rank);
    }
    found.push_back({"rank_missing", -1, attempt.launched, static_cast<double>(missing), 0,
                     std::to_string(missing) + " of " + std::to_string(attempt.num_ranks) + " ranks were never heard (" + who + ") within " +
                         seconds(missing_after) + " of the start",
                     "mpirun's log says what did not start: onestep logs JOB --rank mpirun"});
  }

  for (const WorkerRecord& rank : attempt.ranks) {
    if (bounds.silent_s <= 0 || rank.seconds_silent < bounds.silent_s) continue;
    found.push_back({"rank_silent", rank.rank, rank.last_heard, rank.seconds_silent, bounds.silent_s,
                     name_of(rank.rank) + " on " + rank.host + " (process " + std::to_string(rank.pid) +
                         ") was not heard for " + seconds(bounds.silent_s) + " or more",
                     "Its host, process or network is gone or stopped; killing the process lets the attempt end and start again."});
  }

  std::int64_t furthest = 0;
  for (const WorkerRecord& rank : attempt.ranks) furthest = std::max(furthest, rank.iteration.value_or(0));
  if (furthest != seen.iteration || seen.iteration_since == 0) {
    // What went before this coordinator's first look is no measure.
    if (seen.iteration > 0 && furthest > seen.iteration) {
      seen.seconds_an_iteration = (now - seen.iteration_since) / static_cast<double>(furthest - seen.iteration);
    }
    seen.iteration = furthest;
    seen.iteration_since = now;
  }
  const double stalled_after = std::max(bounds.stalled_s, kStalledSteps * seen.seconds_an_iteration);
  if (attempt.is_training && bounds.stalled_s > 0 && furthest > 0 && now - seen.iteration_since >= stalled_after) {
    const auto last = std::max_element(attempt.ranks.begin(), attempt.ranks.end(), [](const WorkerRecord& a, const WorkerRecord& b) {
      return a.iterations_behind.value_or(0) < b.iterations_behind.value_or(0);
    });
    found.push_back({"rank_stalled", -1, seen.iteration_since, now - seen.iteration_since, stalled_after,
                     "no rank has ended an iteration after " + std::to_string(furthest) + " for " + seconds(stalled_after) +
                         " or more; furthest behind is " + name_of(last->rank) + " on " + last->host,
                     "A rank hangs, and the others wait for it: cancel the job, which kills what does not save in time, and resume it."});
  }

  for (const WorkerRecord& rank : attempt.ranks) {
    if (!rank.slow_by) {
      seen.slow_since.erase(rank.rank);
      continue;
    }
    const double since = seen.slow_since.emplace(rank.rank, now).first->second;
    if (bounds.straggling_s <= 0 || now - since < bounds.straggling_s) continue;
    found.push_back({"rank_straggling", rank.rank, since, *rank.slow_by, kSlow,
                     name_of(rank.rank) + " on " + rank.host + " takes " + std::to_string(kSlow).substr(0, 3) +
                         " times the others' time a step or more, for " + seconds(bounds.straggling_s) + " or more",
                     "The others wait for it at every step: another load on its host, a slower processor or GPU, a hot one."});
  }
  return found;
}

}  // namespace onestep
