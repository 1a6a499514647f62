// What an allocation has to give beside steps that Slurm still counts though their attempts have ended.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "coordinator/launcher/slurm_commands.h"

namespace onestep {

// A step of an attempt that has ended.
struct LeftStep {
  std::string id;                  // "17.3"
  std::vector<std::string> nodes;  // that it was started on
  double age_s = 0;                // since it was seen first with no attempt of its name
};

struct SlurmRoom {
  bool wait = false;               // Slurm is clearing up: ask again
  std::vector<std::string> nodes;  // that may be given work
  std::vector<std::string> away;   // of the allocation, and don't answer
  bool overlap = false;            // what Slurm counts as used is not: a step must be placed by hand
  std::string reason;              // for people; "": nothing to say
};

// A step whose processes have ended goes within moments. One that has lost a node waits until Slurm misses the node (SlurmdTimeout), and
// before Slurm 23.02 it then stays for as long as the allocation, if its other nodes had ended before: it counts as gone here
// as soon as the node is known to be. Any other is waited for, on its own nodes, twice `slurmd_timeout_s` and a minute.
SlurmRoom slurm_room(const std::vector<SlurmNode>& allocation, const std::vector<LeftStep>& left, double slurmd_timeout_s);

// Ranks placed by hand: each local rank's slot, the same on all nodes.
struct SlurmPlace {
  std::vector<std::string> nodes;
  std::vector<int> slots;
  bool shared = false;  // no room: others have some of the slots too
};
using UsedSlots = std::map<std::string, std::set<int>>;  // by node

// One node as full as can be, or whole nodes. nullopt: there are fewer nodes than it needs.
std::optional<SlurmPlace> place_ranks(int ranks, int ranks_per_node, const std::vector<std::string>& nodes, const UsedSlots& used);

}  // namespace onestep
