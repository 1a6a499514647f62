// Which GPU is this rank's.
#pragma once

#include <functional>
#include <optional>
#include <string>

namespace onestep {

// Looks up an environment variable; null when it is unset.
using Environment = std::function<const char*(const char* name)>;

// This rank's number among those of its host, by whoever started it: OMPI_COMM_WORLD_LOCAL_RANK (mpirun), SLURM_LOCALID (srun);
// PMIX_RANK, a number over all hosts, only where neither is set. nullopt: a process alone.
// mpirun comes first, since inside a Slurm job it hands on the number of the step that it runs in.
// Errors: kUsage for a value that is no number.
std::optional<int> local_rank(const Environment& environment);

// The slot of its host that the launcher has given this rank: the entry of its local rank in ONESTEP_LOCAL_SLOTS ("2,3"), else its local rank.
// Errors: kUsage as above, for a list that is none or too short.
std::optional<int> local_slot(const Environment& environment);

// One visible device: that one, whoever it belongs to (the launcher has bound it). Several: that of the slot.
// Errors: kConflict when a host has more ranks than visible devices, or none.
int device_of_rank(int num_visible_devices, int local_slot);

}  // namespace onestep
