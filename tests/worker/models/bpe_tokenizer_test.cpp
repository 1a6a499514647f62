#include "worker/models/bpe_tokenizer.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "common/durable_file.h"
#include "common/hash.h"
#include "support/files.h"
#include "support/parity.h"

namespace onestep {
namespace {

using nlohmann::json;

const std::vector<std::string>& clip_merges() {
  static const auto kMerges = merges_of_text(read_file(ONESTEP_SOURCE_DIR "/tests/golden/clip_merges.txt"));
  return kMerges;
}

BpeTokenizer clip_tokenizer(const BpeTokenizerOptions& options = {}) {
  return {BpeMerges(clip_vocabulary(clip_merges()), clip_merges(), "clip_merges.txt"), options, "clip_merges.txt"};
}

std::string joined(const std::vector<std::int64_t>& ids) {
  std::string text;
  for (const std::int64_t id : ids) {
    if (!text.empty()) text += ',';
    text += std::to_string(id);
  }
  return text;
}

std::string short_digest(const std::string& text) { return sha256(text).substr(0, 16); }

// tools/golden/make_tokenizer_golden.py: ids of transformers' CLIPTokenizer.
const json& golden() {
  static const json kGolden = json::parse(read_file(ONESTEP_SOURCE_DIR "/tests/golden/clip_tokenizer.json"));
  return kGolden;
}

std::string tokenizer_packages() { return versions_of(golden().at("versions"), {"transformers", "tokenizers"}); }

std::string utf8(int c) {
  const auto tail = [](int bits) { return static_cast<char>(0x80 | (bits & 0x3F)); };
  if (c < 0x80) return {static_cast<char>(c)};
  if (c < 0x800) return {static_cast<char>(0xC0 | (c >> 6)), tail(c)};
  if (c < 0x10000) return {static_cast<char>(0xE0 | (c >> 12)), tail(c >> 6), tail(c)};
  return {static_cast<char>(0xF0 | (c >> 18)), tail(c >> 12), tail(c >> 6), tail(c)};
}

TEST(BpeTokenizer, HasClipsVocabulary) {
  EXPECT_EQ(clip_merges().size(), 48894u);
  const auto vocabulary = clip_vocabulary(clip_merges());
  EXPECT_EQ(vocabulary.size(), 49408u);
  EXPECT_EQ(vocabulary.at("!"), 0);
  EXPECT_EQ(vocabulary.at("<|startoftext|>"), 49406);
  EXPECT_EQ(vocabulary.at("<|endoftext|>"), 49407);
}

TEST(BpeTokenizer, PublishedIds) {
  const auto tokenizer = clip_tokenizer();
  EXPECT_EQ(joined(tokenizer.content("a photo of a cat")), "320,1125,539,320,2368");
  EXPECT_EQ(joined(tokenizer.content("it's 2024, isn't it?!")), "585,568,273,271,273,275,267,2923,713,585,2835");
  EXPECT_EQ(joined(tokenizer.content("café naïve")), "15304,1097,35689,563");
}

TEST(BpeTokenizer, TwoThousandHostileStrings) {
  const auto tokenizer = clip_tokenizer();
  ASSERT_EQ(golden().at("strings").size(), 2000u);
  int num_unequal = 0;
  for (const json& row : golden().at("strings")) {
    const auto text = row.at(0).get<std::string>();
    const auto content = tokenizer.content(text);
    const bool equal = content.size() == row.at(1).get<std::size_t>() && short_digest(joined(content)) == row.at(2).get<std::string>() &&
                       short_digest(joined(tokenizer.encode(text))) == row.at(3).get<std::string>();
    EXPECT_TRUE(equal) << json(text).dump(-1, ' ', true);
    if (!equal) ++num_unequal;
  }
  ParityRow parity({"bpe_tokenizer", tokenizer_packages(), "2,000 hostile strings", "strings whose ids differ", "none: ids"});
  parity.forward(num_unequal, 0);
}

TEST(BpeTokenizer, EveryCodePoint) {
  const auto tokenizer = clip_tokenizer();
  constexpr int kBlock = 4096;
  const json& digests = golden().at("code_points");
  ASSERT_EQ(digests.size(), 0x110000u / kBlock);
  ParityRow parity({"bpe_tokenizer", tokenizer_packages(), "every code point between two letters", "blocks of 4,096 strings that differ", "none: ids"});
  int num_unequal = 0;
  for (int first = 0; first < 0x110000; first += kBlock) {
    std::string lines;
    for (int c = first; c < first + kBlock; ++c) {
      if (c >= 0xD800 && c < 0xE000) continue;
      std::string text = "a";
      text += utf8(c);
      text += "b";
      lines += joined(tokenizer.content(text)) + "\n";
    }
    const bool equal = short_digest(lines) == digests.at(first / kBlock).get<std::string>();
    EXPECT_TRUE(equal) << std::hex << first;
    if (!equal) ++num_unequal;
  }
  parity.forward(num_unequal, 0);
}

TEST(BpeTokenizer, NamesOfTheEndsBeforeAndAfterNormalization) {
  for (const auto& [name, begin, end] : {std::tuple("examples", false, false), {"published", true, false}, {"late", true, true}}) {
    BpeTokenizerOptions options;
    options.begin_normalized = begin;
    options.end_normalized = end;
    const auto tokenizer = clip_tokenizer(options);
    for (const auto& [text, ids] : golden().at(name).items()) {
      EXPECT_EQ(tokenizer.encode(text), ids.get<std::vector<std::int64_t>>()) << name << ": " << text;
    }
  }
}

TEST(BpeTokenizer, CutsToLengthAndPads) {
  BpeTokenizerOptions options;
  options.pad_token = "!";
  const auto tokenizer = clip_tokenizer(options);
  const auto empty = tokenizer.encode("");
  ASSERT_EQ(empty.size(), 77u);
  EXPECT_EQ(empty[0], 49406);
  EXPECT_EQ(empty[1], 49407);
  EXPECT_EQ(empty[2], 0);
  std::string text;
  for (int i = 0; i < 100; ++i) text += "a ";
  const auto full = tokenizer.encode(text);
  ASSERT_EQ(full.size(), 77u);
  EXPECT_EQ(full[75], 320);
  EXPECT_EQ(full[76], 49407);
}

TEST(BpeTokenizer, RefusesWhatIsNotUtf8) {
  const auto tokenizer = clip_tokenizer();
  for (const char* text : {"\xC3", "\xC0\x80", "\xED\xA0\x80", "\xF4\x90\x80\x80", "a\xFF"}) {
    const auto error = error_of([&] { (void)tokenizer.content(text); });
    ASSERT_TRUE(error) << text;
    EXPECT_EQ(error->code, ErrorCode::kUsage);
  }
}

TEST(BpeTokenizer, RefusesMergesThatDoNotFit) {
  const auto vocabulary = clip_vocabulary({"a b"});
  const auto error = error_of([&] { BpeMerges(vocabulary, {"a b", "b c"}, "merges.txt"); });
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code, ErrorCode::kCorrupt);
  EXPECT_NE(error->message.find("merges.txt: expected a token \"bc\""), std::string::npos) << error->message;
  EXPECT_TRUE(error_of([&] { BpeMerges(vocabulary, {"ab"}, "merges.txt"); }));
  EXPECT_TRUE(error_of([&] { BpeMerges({}, {}, "merges.txt"); }));
}

}  // namespace
}  // namespace onestep
