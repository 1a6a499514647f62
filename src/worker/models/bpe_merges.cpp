#include "worker/models/bpe_merges.h"

#include <algorithm>
#include <queue>
#include <utility>

#include "common/error.h"

namespace onestep {
namespace {

constexpr const char* kEndOfWord = "</w>";

// Bytes in the order of the vocabulary: those that print as Latin-1, then the other 68.
bool prints(int byte) {
  return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || (byte >= 0xAE && byte <= 0xFF);
}

std::vector<int> bytes_in_order() {
  std::vector<int> bytes;
  for (const bool printing : {true, false}) {
    for (int byte = 0; byte < 256; ++byte) {
      if (prints(byte) == printing) bytes.push_back(byte);
    }
  }
  return bytes;
}

// UTF-8 of a code point below U+0800.
std::string utf8(int code_point) {
  if (code_point < 0x80) return {static_cast<char>(code_point)};
  return {static_cast<char>(0xC0 | (code_point >> 6)), static_cast<char>(0x80 | (code_point & 0x3F))};
}

// Byte -> its character: itself where it prints, else U+0100 and up.
std::array<std::string, 256> byte_characters() {
  std::array<std::string, 256> characters;
  int next = 0x100;
  for (const int byte : bytes_in_order()) characters[byte] = utf8(prints(byte) ? byte : next++);
  return characters;
}

// "left right" -> the two; both empty when it is not two words.
std::pair<std::string, std::string> halves_of(const std::string& merge) {
  const std::size_t space = merge.find(' ');
  if (space == 0 || space == std::string::npos || space + 1 == merge.size() || merge.find(' ', space + 1) != std::string::npos) {
    return {};
  }
  return {merge.substr(0, space), merge.substr(space + 1)};
}

std::uint64_t pair_key(std::int32_t left, std::int32_t right) {
  return (static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32) | static_cast<std::uint32_t>(right);
}

// A pair that can be joined: the left one's position; and what it was when it was found.
struct Candidate {
  std::int32_t rank;
  std::int64_t position;
  std::int32_t joined;
  bool operator>(const Candidate& other) const {
    return std::pair(rank, position) > std::pair(other.rank, other.position);
  }
};

struct Symbol {
  std::int32_t id;
  std::int64_t previous, next;  // -1: none
  bool alive;
};

}  // namespace

BpeMerges::BpeMerges(std::unordered_map<std::string, std::int32_t> vocabulary, std::vector<std::string> merges,
                     const std::string& where)
    : vocabulary_(std::move(vocabulary)), list_(std::move(merges)) {
  const auto characters = byte_characters();
  for (int byte = 0; byte < 256; ++byte) {
    byte_ids_[byte] = static_cast<std::int32_t>(id_of(characters[byte], where));
    final_byte_ids_[byte] = static_cast<std::int32_t>(id_of(characters[byte] + kEndOfWord, where));
  }
  for (std::size_t rank = 0; rank < list_.size(); ++rank) {
    const auto [left, right] = halves_of(list_[rank]);
    if (left.empty()) {
      throw Error(ErrorCode::kCorrupt, where + ": merge " + std::to_string(rank) +
                                           ": expected two tokens with a space between, found \"" + list_[rank] + "\"");
    }
    const auto joined = static_cast<std::int32_t>(id_of(left + right, where));
    const auto key = pair_key(static_cast<std::int32_t>(id_of(left, where)), static_cast<std::int32_t>(id_of(right, where)));
    merges_.insert_or_assign(key, Merge{static_cast<std::int32_t>(rank), joined});
  }
}

std::int64_t BpeMerges::id_of(const std::string& token, const std::string& where) const {
  const auto found = vocabulary_.find(token);
  if (found == vocabulary_.end()) {
    throw Error(ErrorCode::kCorrupt, where + ": expected a token \"" + token + "\" in the vocabulary, found none among " +
                                         std::to_string(vocabulary_.size()));
  }
  return found->second;
}

const BpeMerges::Merge* BpeMerges::find(std::int32_t left, std::int32_t right) const {
  const auto found = merges_.find(pair_key(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

// Always the best-ranked pair next, the leftmost of equals.
void BpeMerges::encode(std::string_view word, std::vector<std::int64_t>& ids) const {
  const auto count = static_cast<std::int64_t>(word.size());
  std::vector<Symbol> symbols;
  symbols.reserve(word.size());
  for (std::int64_t i = 0; i < count; ++i) {
    const auto byte = static_cast<unsigned char>(word[i]);
    const bool last = i + 1 == count;
    symbols.push_back({(last ? final_byte_ids_ : byte_ids_)[byte], i - 1, last ? -1 : i + 1, true});
  }
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  const auto push = [&](std::int64_t left) {
    if (left < 0 || symbols[left].next < 0) return;
    if (const Merge* merge = find(symbols[left].id, symbols[symbols[left].next].id)) {
      queue.push({merge->rank, left, merge->joined});
    }
  };
  for (std::int64_t i = 0; i < count; ++i) push(i);
  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    Symbol& left = symbols[best.position];
    if (!left.alive || left.next < 0) continue;
    Symbol& right = symbols[left.next];
    const Merge* merge = find(left.id, right.id);
    if (merge == nullptr || merge->joined != best.joined) continue;  // one of the two has been joined since
    left.id = best.joined;
    left.next = right.next;
    right.alive = false;
    if (left.next >= 0) symbols[left.next].previous = best.position;
    push(left.previous);
    push(best.position);
  }
  for (const Symbol& symbol : symbols) {
    if (symbol.alive) ids.push_back(symbol.id);
  }
}

std::vector<std::string> merges_of_text(std::string_view text) {
  std::vector<std::string> merges;
  std::size_t begin = 0;
  while (begin < text.size()) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    std::string_view line = text.substr(begin, end - begin);
    if (line.ends_with('\r')) line.remove_suffix(1);
    const bool version = begin == 0 && line.starts_with("#version");
    const bool last_empty = line.empty() && end + 1 >= text.size();
    if (!version && !last_empty) merges.emplace_back(line);
    begin = end + 1;
  }
  return merges;
}

std::unordered_map<std::string, std::int32_t> clip_vocabulary(const std::vector<std::string>& merges) {
  std::unordered_map<std::string, std::int32_t> vocabulary;
  const auto add = [&](const std::string& token) {
    vocabulary.emplace(token, static_cast<std::int32_t>(vocabulary.size()));
  };
  const auto characters = byte_characters();
  const auto order = bytes_in_order();
  for (const int byte : order) add(characters[byte]);
  for (const int byte : order) add(characters[byte] + kEndOfWord);
  for (const std::string& merge : merges) {
    const auto [left, right] = halves_of(merge);
    add(left + right);
  }
  add("<|startoftext|>");
  add("<|endoftext|>");
  return vocabulary;
}

}  // namespace onestep
