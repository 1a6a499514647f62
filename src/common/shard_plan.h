// Which shard holds which rows, and which rank writes or verifies it: a pure function, the same on coordinator and worker.
#pragma once

#include <cstdint>
#include <vector>

namespace onestep {

struct Shard {
  std::int64_t index = 0;  // 0, 1, 2, ...
  std::int64_t first = 0;  // global index of its first row
  std::int64_t count = 0;  // rows; every shard but the last has `rows_per_shard`
  int rank = 0;            // index % ranks
};

// count >= 1 rows cut into shards of rows_per_shard >= 1, dealt to ranks >= 1 in turn. Errors: kConfig.
std::vector<Shard> plan_shards(std::int64_t count, std::int64_t rows_per_shard, int ranks);

}  // namespace onestep
