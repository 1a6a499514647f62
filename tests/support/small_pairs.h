// A small pair set for tests of files: three pairs of one channel and 2 x 2 pixels, one shard.
#pragma once

#include <vector>

#include "common/hash.h"
#include "common/pair_file.h"

namespace onestep {

inline PairSetInfo small_pair_set() {
  return {.teacher_sha256 = sha256("t"),
          .sampler = "{}",
          .steps = 18,
          .seed = 1,
          .channels = 1,
          .height = 2,
          .width = 2,
          .count = 3,
          .rows_per_shard = 3,
          .prompts_sha256 = ""};
}

inline PairRows small_pair_rows() {
  return {std::vector<float>(12, 1.0f), std::vector<float>(12, 0.5f), {0, 1, 2}, {0, 1, 2}};
}

}  // namespace onestep
