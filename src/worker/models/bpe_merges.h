// Byte-level byte-pair encoding (Sennrich et al. 2016) of one word: CLIP's vocabulary and its merges.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace onestep {

// A symbol is a token's id. Every byte is one printable character of the vocabulary; the last symbol of a word ends in "</w>".
// Immutable, thread-safe.
class BpeMerges {
 public:
  // vocabulary: token -> id. merges: "left right", best first. Errors: kCorrupt naming `where` for a merge that is not two tokens whose
  // join is a token, or a byte without its two tokens.
  BpeMerges(std::unordered_map<std::string, std::int32_t> vocabulary, std::vector<std::string> merges,
            const std::string& where);
  // Appends the ids of one word (any bytes, not empty) to `ids`.
  void encode(std::string_view word, std::vector<std::int64_t>& ids) const;
  // Errors: kCorrupt naming `where` for a token that is not in the vocabulary.
  [[nodiscard]] std::int64_t id_of(const std::string& token, const std::string& where) const;
  [[nodiscard]] const std::unordered_map<std::string, std::int32_t>& vocabulary() const { return vocabulary_; }
  [[nodiscard]] const std::vector<std::string>& list() const { return list_; }

 private:
  struct Merge {
    std::int32_t rank, joined;
  };
  [[nodiscard]] const Merge* find(std::int32_t left, std::int32_t right) const;

  std::unordered_map<std::string, std::int32_t> vocabulary_;
  std::vector<std::string> list_;
  std::unordered_map<std::uint64_t, Merge> merges_;  // by left << 32 | right
  std::array<std::int32_t, 256> byte_ids_{}, final_byte_ids_{};
};

// The lines of a merges.txt: the "#version" line in front, if any, and a last empty line are not merges.
std::vector<std::string> merges_of_text(std::string_view text);
// The vocabulary that CLIP derives from its merges: bytes, bytes with "</w>", joined pairs, <|startoftext|>, <|endoftext|>.
std::unordered_map<std::string, std::int32_t> clip_vocabulary(const std::vector<std::string>& merges);

}  // namespace onestep
