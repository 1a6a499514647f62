#include "worker/models/bpe_tokenizer.h"

#include <unicode/uchar.h>
#include <unicode/unorm2.h>
#include <unicode/uset.h>
#include <unicode/ustring.h>
#include <unicode/utf16.h>

#include <algorithm>
#include <array>

#include "common/error.h"

namespace onestep {
namespace {

constexpr std::size_t kMaxBytes = std::size_t{1} << 24;

enum class CharacterClass { kSpace, kLetter, kNumber, kOther };

// The reference is built from three tables of different age: normal forms of Unicode 9, classes of Unicode 16, lower case of Unicode 17.
// ICU, of 15 or newer, answers for characters up to 15.0; what the reference knows of later ones is listed here.
constexpr std::uint8_t kIcuAge = 15;
constexpr const char16_t* kNormalizedSet = u"[:age=9.0:]";

struct Range {
  UChar32 first, last;
};
constexpr Range kLaterLetters[] = {
    {0x1C89, 0x1C8A},   {0xA7CB, 0xA7CD},   {0xA7DA, 0xA7DC},   {0x105C0, 0x105F3}, {0x10D4A, 0x10D65}, {0x10D6F, 0x10D85},
    {0x10EC2, 0x10EC4}, {0x11380, 0x11389}, {0x1138B, 0x1138B}, {0x1138E, 0x1138E}, {0x11390, 0x113B5}, {0x113B7, 0x113B7},
    {0x113D1, 0x113D1}, {0x113D3, 0x113D3}, {0x11BC0, 0x11BE0}, {0x13460, 0x143FA}, {0x16100, 0x1611D}, {0x16D40, 0x16D6C},
    {0x18CFF, 0x18CFF}, {0x1E5D0, 0x1E5ED}, {0x1E5F0, 0x1E5F0}, {0x2EBF0, 0x2EE5D}};
constexpr Range kLaterNumbers[] = {{0x10D40, 0x10D49}, {0x116D0, 0x116E3}, {0x11BF0, 0x11BF9}, {0x16130, 0x16139},
                                   {0x16D70, 0x16D79}, {0x1CCF0, 0x1CCF9}, {0x1E5F1, 0x1E5FA}};
struct Lower {
  UChar32 first, last, offset;
};
constexpr Lower kLaterLower[] = {{0x1C89, 0x1C89, 1},    {0xA7CB, 0xA7CB, -42343}, {0xA7CC, 0xA7CC, 1},
                                 {0xA7CE, 0xA7CE, 1},    {0xA7D2, 0xA7D2, 1},      {0xA7D4, 0xA7D4, 1},
                                 {0xA7DA, 0xA7DA, 1},    {0xA7DC, 0xA7DC, -42561}, {0x10D50, 0x10D65, 32},
                                 {0x16EA0, 0x16EB8, 27}};

template <class Row, std::size_t kSize>
const Row* row_of(const Row (&rows)[kSize], UChar32 c) {
  for (const Row& row : rows) {
    if (c >= row.first && c <= row.last) return &row;
  }
  return nullptr;
}

bool icu_answers(UChar32 c) {
  UVersionInfo age;
  u_charAge(c, age);
  return age[0] > 0 && (age[0] < kIcuAge || (age[0] == kIcuAge && age[1] == 0));
}

CharacterClass class_of(UChar32 c) {
  if (!icu_answers(c)) {
    return row_of(kLaterLetters, c) != nullptr   ? CharacterClass::kLetter
           : row_of(kLaterNumbers, c) != nullptr ? CharacterClass::kNumber
                                                 : CharacterClass::kOther;
  }
  if (u_hasBinaryProperty(c, UCHAR_WHITE_SPACE)) return CharacterClass::kSpace;
  const std::uint32_t category = U_GET_GC_MASK(c);
  if ((category & U_GC_L_MASK) != 0) return CharacterClass::kLetter;
  return (category & U_GC_N_MASK) != 0 ? CharacterClass::kNumber : CharacterClass::kOther;
}

UChar32 lower_of(UChar32 c) {
  if (icu_answers(c)) return u_tolower(c);
  const Lower* row = row_of(kLaterLower, c);
  return row == nullptr ? c : c + row->offset;
}

UChar32 character_at(std::u16string_view text, std::size_t position) {
  UChar32 c = 0;
  U16_GET(text.data(), 0, position, text.size(), c);
  return c;
}

void append(std::u16string& text, UChar32 c) {
  if (c > 0xFFFF) {
    text += static_cast<char16_t>(U16_LEAD(c));
    text += static_cast<char16_t>(U16_TRAIL(c));
  } else {
    text += static_cast<char16_t>(c);
  }
}

std::u16string utf16(std::string_view text) {
  if (text.size() > kMaxBytes) {
    throw Error(ErrorCode::kUsage, "prompt: expected at most " + std::to_string(kMaxBytes) + " bytes, found " +
                                       std::to_string(text.size()));
  }
  std::u16string result(text.size(), u'\0');
  std::int32_t length = 0;
  UErrorCode status = U_ZERO_ERROR;
  u_strFromUTF8(result.data(), static_cast<std::int32_t>(result.size()), &length, text.data(),
                static_cast<std::int32_t>(text.size()), &status);
  if (U_FAILURE(status)) throw Error(ErrorCode::kUsage, "prompt: expected UTF-8, found other bytes");
  result.resize(static_cast<std::size_t>(length));
  return result;
}

std::string utf8(std::u16string_view text) {
  std::string result(3 * text.size(), '\0');
  std::int32_t length = 0;
  UErrorCode status = U_ZERO_ERROR;
  u_strToUTF8(result.data(), static_cast<std::int32_t>(result.size()), &length, text.data(),
              static_cast<std::int32_t>(text.size()), &status);
  if (U_FAILURE(status)) throw Error(ErrorCode::kInternal, "prompt: back to UTF-8: " + std::string(u_errorName(status)));
  result.resize(static_cast<std::size_t>(length));
  return result;
}

void check(UErrorCode status, const char* what) {
  if (U_FAILURE(status)) throw Error(ErrorCode::kInternal, std::string("prompt: ") + what + ": " + u_errorName(status));
}

// NFC that leaves the characters of later Unicodes alone. Made once, never freed.
const UNormalizer2* normalizer() {
  static const UNormalizer2* const kNormalizer = [] {
    UErrorCode status = U_ZERO_ERROR;
    USet* known = uset_openPattern(kNormalizedSet, -1, &status);
    check(status, "Unicode set");
    uset_freeze(known);
    const UNormalizer2* made = unorm2_openFiltered(unorm2_getNFCInstance(&status), known, &status);
    check(status, "NFC");
    return made;
  }();
  return kNormalizer;
}

std::u16string nfc(std::u16string_view text) {
  UErrorCode status = U_ZERO_ERROR;
  std::u16string result(3 * text.size() + 1, u'\0');  // NFC is at most three times as long
  const std::int32_t length =
      unorm2_normalize(normalizer(), text.data(), static_cast<std::int32_t>(text.size()), result.data(),
                       static_cast<std::int32_t>(result.size()), &status);
  check(status, "NFC");
  result.resize(static_cast<std::size_t>(length));
  return result;
}

// White space to single spaces, then lower case, one character at a time: a final sigma is not special.
std::u16string normalize(std::u16string_view part) {
  std::u16string result;
  bool in_space = false;
  const std::u16string composed = nfc(part);
  for (std::size_t i = 0; i < composed.size();) {
    const UChar32 c = character_at(composed, i);
    i += U16_LENGTH(c);
    const bool space = class_of(c) == CharacterClass::kSpace;
    if (space) {
      if (!in_space) result += u' ';
    } else if (c == 0x130) {
      result += u"i\u0307";  // the one capital whose small letter is two characters
    } else {
      append(result, lower_of(c));
    }
    in_space = space;
  }
  return result;
}

// The end of the word that begins at `begin`, which is no white space.
std::size_t word_end(std::u16string_view text, std::size_t begin) {
  static constexpr std::array<std::u16string_view, 7> kContractions = {u"'s", u"'t", u"'re", u"'ve", u"'m", u"'ll", u"'d"};
  for (const std::u16string_view contraction : kContractions) {
    if (text.substr(begin).starts_with(contraction)) return begin + contraction.size();
  }
  const CharacterClass kind = class_of(character_at(text, begin));
  std::size_t end = begin;
  while (end < text.size()) {
    const UChar32 c = character_at(text, end);
    if (class_of(c) != kind) break;
    end += U16_LENGTH(c);
    if (kind == CharacterClass::kNumber) break;
  }
  return end;
}

}  // namespace

BpeTokenizer::BpeTokenizer(BpeMerges merges, BpeTokenizerOptions options, const std::string& where)
    : merges_(std::move(merges)), options_(std::move(options)) {
  if (options_.max_length < 2) {
    throw Error(ErrorCode::kConfig,
                where + ": model_max_length: expected 2 or more, found " + std::to_string(options_.max_length));
  }
  begin_ = merges_.id_of(options_.begin_token, where);
  end_ = merges_.id_of(options_.end_token, where);
  pad_ = merges_.id_of(options_.pad_token, where);
  (options_.begin_normalized ? late_ : raw_).push_back({utf16(options_.begin_token), begin_});
  (options_.end_normalized ? late_ : raw_).push_back({utf16(options_.end_token), end_});
}

namespace {

// Cuts `text` at the first of `marks` again and again: calls `between(part)` and `at(mark)` in turn.
template <class Marks, class Between, class At>
void cut(std::u16string_view text, const Marks& marks, Between between, At at) {
  while (!text.empty()) {
    std::size_t first = text.size();
    decltype(&*marks.begin()) found = nullptr;
    for (const auto& mark : marks) {
      const std::size_t position = text.find(mark.text);
      if (position < first) {
        first = position;
        found = &mark;
      }
    }
    if (first > 0) between(text.substr(0, first));
    if (found == nullptr) return;
    at(*found);
    text.remove_prefix(first + found->text.size());
  }
}

}  // namespace

std::vector<std::int64_t> BpeTokenizer::content(std::string_view text) const {
  std::vector<std::int64_t> ids;
  const auto push = [&ids](const Special& special) { ids.push_back(special.id); };
  cut(
      utf16(text), raw_,
      [&](std::u16string_view part) {
        cut(normalize(part), late_, [&](std::u16string_view words) { encode_words(words, ids); }, push);
      },
      push);
  return ids;
}

void BpeTokenizer::encode_words(std::u16string_view normalized, std::vector<std::int64_t>& ids) const {
  // The name of an end that only lower-casing made is a word of its own where a word begins; it then falls into three.
  static constexpr std::array<std::u16string_view, 2> kEnds = {u"startoftext", u"endoftext"};
  const auto encode_word = [&](std::u16string_view word) { merges_.encode(utf8(word), ids); };
  while (!normalized.empty()) {
    std::size_t length = 1;
    if (normalized.front() != u' ') {
      length = word_end(normalized, 0);
      for (const std::u16string_view end : kEnds) {
        if (!normalized.starts_with(u"<|") || !normalized.substr(2).starts_with(end) ||
            !normalized.substr(2 + end.size()).starts_with(u"|>")) {
          continue;
        }
        encode_word(u"<|");
        encode_word(end);
        normalized.remove_prefix(2 + end.size());
        length = 2;  // "|>"
      }
      encode_word(normalized.substr(0, length));
    }
    normalized.remove_prefix(length);
  }
}

std::vector<std::int64_t> BpeTokenizer::encode(std::string_view text) const {
  std::vector<std::int64_t> ids = content(text);
  ids.resize(std::min(ids.size(), static_cast<std::size_t>(options_.max_length - 2)));
  ids.insert(ids.begin(), begin_);
  ids.push_back(end_);
  ids.resize(static_cast<std::size_t>(options_.max_length), pad_);
  return ids;
}

}  // namespace onestep
