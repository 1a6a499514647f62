// Shards of pair sets (HDF5), verified against the set that the corpus is of.
#include "fuzz/fuzz_target.h"
#include "support/small_pairs.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace onestep;
  static const TempFolder folder(in_memory_parent());
  static const PairSetInfo info = small_pair_set();
  spit(folder / pair_shard_name(0), text_of(data, size));
  try {
    verify_pair_shard(folder.path(), info, 0);
  } catch (const Error&) {
  }
  return 0;
}
