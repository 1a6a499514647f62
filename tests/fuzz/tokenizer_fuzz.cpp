// Prompts: any bytes become ids of the vocabulary, between the two ends, or are refused as no UTF-8.
#include <cstdlib>

#include "common/durable_file.h"
#include "fuzz/fuzz_target.h"
#include "worker/models/bpe_merges.h"
#include "worker/models/bpe_tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace onestep;
  static const BpeTokenizer tokenizer = [] {
    const std::string path = ONESTEP_SOURCE_DIR "/tests/golden/clip_merges.txt";
    const auto merges = merges_of_text(read_file(path));
    return BpeTokenizer(BpeMerges(clip_vocabulary(merges), merges, path), {}, path);
  }();
  try {
    const auto ids = tokenizer.encode(text_of(data, size));
    if (ids.size() != 77 || ids.front() != 49406 || ids.back() != 49407) std::abort();
    for (const std::int64_t id : ids) {
      if (id < 0 || id > 49407) std::abort();
    }
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kUsage) std::abort();
  }
  return 0;
}
