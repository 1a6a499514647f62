// Pure: which ranks of a running attempt are silent, stuck or slow for so long that somebody should be told.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/job_spec.h"
#include "coordinator/rank_board.h"

namespace onestep {

struct RankTrouble {
  std::string code;  // one of rank_alarm_codes()
  int rank = -1;     // -1: all of them
  double since = 0;  // Unix seconds
  double value = 0, bound = 0;
  std::string reason;
  std::string hint;
};

// "rank_missing", "rank_silent", "rank_stalled", "rank_straggling".
const std::vector<std::string>& rank_alarm_codes();

// What the watchdog looks at: one running attempt.
struct WatchedAttempt {
  std::string job;
  int attempt = 0;
  int num_ranks = 1;
  bool is_training = false;          // its iterations follow each other steadily
  double launched = 0;               // when this coordinator began to wait for its ranks
  std::vector<WorkerRecord> ranks;   // with_trouble()
};

// Remembers since when a rank straggles and when an iteration was last ended. In memory only: after a restart the waiting begins anew.
class RankWatchdog {
 public:
  // All that is wrong now, in the order of codes and ranks.
  std::vector<RankTrouble> look(const WatchedAttempt& attempt, const HealthSpec& bounds, double now);
  void forget(const std::string& job) { jobs_.erase(job); }

 private:
  struct Seen {
    int attempt = 0;
    std::int64_t iteration = 0;        // the furthest rank's
    double iteration_since = 0;
    double seconds_an_iteration = 0;   // of the wall clock; 0: not known yet
    std::map<int, double> slow_since;  // by rank
  };
  std::map<std::string, Seen> jobs_;
};

}  // namespace onestep
