// Which ready jobs start now, and why the others wait. Pure: the time comes in, decisions with
// reasons come out.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace onestep {

// The rule:
// - A host has `slots`; each rank of a running job holds one.
// - Jobs start strictly in the order of their numbers: one that does not fit yet holds back those
// behind it, so that a wide
//   job is never overtaken for ever.
// - A job with more ranks than there are slots runs alone, oversubscribed; nothing else starts
// until it ends.
// - Automatic evaluations of a running job's checkpoints hold no slots: one at a time, beside a
// full host, at low priority.
struct ReadyJob {
  std::string id;
  std::int64_t number = 0;
  int ranks = 1;
  bool evaluation = false;  // automatic
  double not_before = 0;  // restart delay, Unix seconds; meanwhile it keeps its place in the order
};

struct RunningJob {
  std::string id;
  int ranks = 1;
  bool evaluation = false;
};

struct Decision {
  std::string id;
  bool start = false;
  std::string reason;  // for people
};

// One decision for each ready job, in the order of their numbers.
std::vector<Decision> schedule(std::vector<ReadyJob> ready, const std::vector<RunningJob>& running,
                               int slots, double now);

}  // namespace onestep
