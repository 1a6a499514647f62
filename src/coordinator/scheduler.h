// Which ready jobs start now, and why the others wait. Pure: the time comes in, decisions with
// reasons come out.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/job_spec.h"

namespace onestep {

// The rule:
// - A host has `slots`; each rank of a running job holds one.
// - Jobs start strictly in the order of their numbers: one that does not fit yet holds back those
// behind it, so that a wide
//   job is never overtaken for ever.
// - A job with more ranks than there are slots runs alone, oversubscribed; nothing else starts
// until it ends. Where ranks can't share a slot (hosts of a file, Slurm) it runs on fewer ranks if that leaves its bits
// as they are, else it waits.
// - Automatic evaluations of a running job's checkpoints hold no slots: one at a time, beside a
// full host, at low priority.
struct ReadyJob {
  std::string id;
  std::int64_t number = 0;
  int ranks = 1;
  bool evaluation = false;  // automatic
  double not_before = 0;  // restart delay, Unix seconds; meanwhile it keeps its place in the order
  std::vector<int> fewer_ranks = {};  // on which it may run too, descending
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
  int ranks = 0;       // to start it with
};

// Of those that others hold back. It names none of them: each start would change it for all that wait.
inline constexpr const char* kBehindOthers = "waits for its turn behind other jobs";

// One decision for each ready job, in the order of their numbers.
std::vector<Decision> schedule(std::vector<ReadyJob> ready, const std::vector<RunningJob>& running,
                               int slots, double now, bool oversubscribe = true);

// Rank counts below the spec's that give the same bits, descending: powers of two that divide the micro-batches for
// training, none with the reduction "fast", any number for pairs and evaluations.
std::vector<int> fewer_ranks(const JobSpec& spec);

}  // namespace onestep
