// CLIP's tokenizer, as diffusers runs it (transformers' CLIPTokenizer, the fast one): text -> the 77 ids that the text encoder reads.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "worker/models/bpe_merges.h"

namespace onestep {

struct BpeTokenizerOptions {
  std::int64_t max_length = 77;                // ids a prompt, the two ends included
  std::string begin_token = "<|startoftext|>";
  std::string end_token = "<|endoftext|>";
  std::string pad_token = "<|endoftext|>";     // "!" (id 0) for Stable Diffusion 2
  // Whether each end's name is looked for in the text before it is normalized (as newly made tokenizers do: case counts) or after.
  bool begin_normalized = false, end_normalized = false;
};

// Text is cut at the names of the two ends; each part is brought to NFC, runs of white space become one space, letters become lower
// case; then words are contractions ('s), runs of letters, single digits or runs of anything else but white space; each word is encoded
// by its bytes (bpe_merges.h). Immutable, thread-safe.
class BpeTokenizer {
 public:
  // Errors: kCorrupt naming `where` when a token of the options is not in the vocabulary; kConfig for max_length < 2.
  BpeTokenizer(BpeMerges merges, BpeTokenizerOptions options, const std::string& where);
  // text: UTF-8. The ids between the two ends, all of them. Errors: kUsage for text that is not UTF-8 or longer than 2^24 bytes.
  [[nodiscard]] std::vector<std::int64_t> content(std::string_view text) const;
  // begin, the first max_length - 2 ids of content(), end, then padding: max_length ids.
  [[nodiscard]] std::vector<std::int64_t> encode(std::string_view text) const;
  [[nodiscard]] const BpeTokenizerOptions& options() const { return options_; }
  [[nodiscard]] const BpeMerges& merges() const { return merges_; }

 private:
  struct Special {
    std::u16string text;
    std::int64_t id;
  };
  void encode_words(std::u16string_view normalized, std::vector<std::int64_t>& ids) const;

  BpeMerges merges_;
  BpeTokenizerOptions options_;
  std::vector<Special> raw_, late_;  // looked for before and after normalization
  std::int64_t begin_, end_, pad_;
};

}  // namespace onestep
