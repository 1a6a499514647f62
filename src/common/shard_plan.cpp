#include "common/shard_plan.h"

#include <algorithm>
#include <string>

#include "common/error.h"

namespace onestep {
namespace {

void require_positive(const char* name, std::int64_t value) {
  if (value < 1) {
    throw Error(ErrorCode::kConfig, std::string("shard plan: ") + name +
                                        ": expected an integer >= 1, found " +
                                        std::to_string(value));
  }
}

}  // namespace

std::vector<Shard> plan_shards(std::int64_t count, std::int64_t rows_per_shard, int ranks) {
  require_positive("count", count);
  require_positive("rows_per_shard", rows_per_shard);
  require_positive("ranks", ranks);
  std::vector<Shard> shards;
  for (std::int64_t first = 0; first < count;) {
    const auto index = static_cast<std::int64_t>(shards.size());
    const std::int64_t rows = std::min(rows_per_shard, count - first);
    shards.push_back({index, first, rows, static_cast<int>(index % ranks)});
    first += rows;
  }
  return shards;
}

}  // namespace onestep
