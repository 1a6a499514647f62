// CLIP's tokenizer cut to its first merges: a vocabulary of some hundred words.
#pragma once

#include <cstddef>
#include <memory>
#include <utility>

#include "common/durable_file.h"
#include "worker/models/bpe_tokenizer.h"

namespace onestep {

// The vocabulary has 512 + merges + 2 words.
inline std::unique_ptr<BpeTokenizer> short_tokenizer(std::size_t merges, const BpeTokenizerOptions& options = {}) {
  const std::string name = "clip_merges.txt";
  auto kept = merges_of_text(read_file(ONESTEP_SOURCE_DIR "/tests/golden/" + name));
  kept.resize(merges);
  BpeMerges words(clip_vocabulary(kept), kept, name);
  return std::make_unique<BpeTokenizer>(std::move(words), options, name);
}

}  // namespace onestep
