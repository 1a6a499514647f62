// Shards of pair sets (HDF5), verified against the set that the corpus is of.
#include "common/hash.h"
#include "common/pair_file.h"
#include "fuzz/fuzz_target.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace onestep;
  static const TempFolder folder(in_memory_parent());
  static const PairSetInfo info{.teacher_sha256 = sha256("t"),
                                .sampler = "{}",
                                .steps = 18,
                                .seed = 1,
                                .channels = 1,
                                .height = 2,
                                .width = 2,
                                .count = 3,
                                .rows_per_shard = 3};
  spit(folder / pair_shard_name(0), text_of(data, size));
  try {
    verify_pair_shard(folder.path(), info, 0);
  } catch (const Error&) {
  }
  return 0;
}
