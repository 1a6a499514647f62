#include "coordinator/leases.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <map>

#include "common/error.h"
#include "common/shard_plan.h"
#include "coordinator/message_fields.h"

namespace onestep {
namespace {

using nlohmann::json;

constexpr const char* kPrefix = "pairs-";
constexpr const char* kSuffix = ".h5";

// As docs/formats.md names them; common/pair_file, which writes them, would bring HDF5 into the
// coordinator.
std::string shard_file_name(std::int64_t shard) {
  char digits[32];
  std::snprintf(digits, sizeof digits, "%05lld", static_cast<long long>(shard));
  return std::string(kPrefix) + digits + kSuffix;
}

const LeaseRecord* find(const std::vector<LeaseRecord>& leases, std::int64_t shard) {
  const auto found = std::find_if(leases.begin(), leases.end(),
                                  [&](const LeaseRecord& lease) { return lease.shard == shard; });
  return found == leases.end() ? nullptr : &*found;
}

}  // namespace

std::vector<LeaseRecord> grant_leases(const GeneratePairsSpec& spec, int ranks, int rank,
                                      int attempt, const std::vector<LeaseRecord>& known,
                                      const std::function<bool(const std::string&)>& file_exists) {
  std::vector<LeaseRecord> granted;
  for (const Shard& shard : plan_shards(spec.count, spec.rows_per_shard, ranks)) {
    if (shard.rank != rank) continue;
    const LeaseRecord* lease = find(known, shard.index);
    const bool done = lease != nullptr && lease->state == "done";
    if (done && file_exists(shard_file_name(shard.index))) continue;
    granted.push_back({shard.index, shard.first, shard.count, rank, attempt, "leased", ""});
  }
  return granted;
}

std::vector<LeaseRecord> plan_with_leases(const GeneratePairsSpec& spec, int ranks,
                                          const std::vector<LeaseRecord>& known) {
  std::map<std::int64_t, const LeaseRecord*> by_shard;
  for (const LeaseRecord& lease : known) by_shard[lease.shard] = &lease;
  std::vector<LeaseRecord> plan;
  for (const Shard& shard : plan_shards(spec.count, spec.rows_per_shard, ranks)) {
    const auto lease = by_shard.find(shard.index);
    plan.push_back(lease != by_shard.end() ? *lease->second
                                           : LeaseRecord{shard.index, shard.first, shard.count,
                                                         shard.rank, 0, "released", ""});
  }
  return plan;
}

LeaseRecord finished_shard(const GeneratePairsSpec& spec, int ranks, int attempt,
                           const json& body) {
  const std::int64_t index = integer_field(body, "shard_done", "index", 0, INT64_MAX);
  const std::int64_t first = integer_field(body, "shard_done", "first", 0, INT64_MAX);
  const std::int64_t count = integer_field(body, "shard_done", "count", 1, INT64_MAX);
  const std::string sha256 = text_field(body, "shard_done", "sha256");
  for (const Shard& shard : plan_shards(spec.count, spec.rows_per_shard, ranks)) {
    if (shard.index != index || shard.first != first || shard.count != count) continue;
    return {index, first, count, shard.rank, attempt, "done", sha256};
  }
  throw Error(ErrorCode::kCorrupt, "shard_done message: shard " + std::to_string(index) +
                                       " with rows " + std::to_string(first) + " + " +
                                       std::to_string(count) + " is not in the job's plan");
}

json shard_plan_body(const std::vector<LeaseRecord>& leases) {
  json shards = json::array();
  for (const LeaseRecord& lease : leases) {
    shards.push_back({{"index", lease.shard},
                      {"first", lease.first},
                      {"count", lease.count},
                      {"rank", lease.rank}});
  }
  return {{"shards", std::move(shards)}};
}

std::int64_t count_shard_files(const std::string& run_folder) {
  std::int64_t count = 0;
  std::error_code missing;
  for (const auto& entry : std::filesystem::directory_iterator(run_folder, missing)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(kPrefix) && name.ends_with(kSuffix)) ++count;
  }
  return count;
}

}  // namespace onestep
