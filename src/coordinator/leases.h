// Who writes which shard of a pair set: leases granted from the shard plan, held by an attempt,
// ended by a finished shard.
#pragma once

#include <nlohmann/json.hpp>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "common/job_spec.h"
#include "coordinator/store.h"

namespace onestep {

// The shards of the plan that `rank` has to write in this attempt: all of its own but those done
// whose file is (still) there. To be put into the store as they are. Pure but for `file_exists(name
// in the run folder)`. Errors: those of plan_shards.
std::vector<LeaseRecord> grant_leases(const GeneratePairsSpec& spec, int ranks, int rank,
                                      int attempt, const std::vector<LeaseRecord>& known,
                                      const std::function<bool(const std::string&)>& file_exists);

// The whole plan with what is known of each shard, for REST.
std::vector<LeaseRecord> plan_with_leases(const GeneratePairsSpec& spec, int ranks,
                                          const std::vector<LeaseRecord>& known);

// The lease that a kShardDone message ends. Errors: kCorrupt when a field is missing or the shard
// is not in the plan.
LeaseRecord finished_shard(const GeneratePairsSpec& spec, int ranks, int attempt,
                           const nlohmann::json& body);

// Body of kShardPlan.
nlohmann::json shard_plan_body(const std::vector<LeaseRecord>& leases);

// Published shards ("pairs-00003.h5") in a run folder.
std::int64_t count_shard_files(const std::string& run_folder);

}  // namespace onestep
