#include "common/philox.h"

#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <tuple>
#include <vector>

namespace onestep {
namespace {

using Words = std::array<std::uint32_t, 4>;

// The known answers that Random123 publishes for philox4x32-10 (its file kat_vectors).
static_assert(philox4x32_10({0, 0, 0, 0}, {0, 0}) ==
              Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
static_assert(philox4x32_10({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
                            {0xffffffff, 0xffffffff}) ==
              Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});

TEST(Philox, GivesThePublishedAnswerForTheDigitsOfPi) {
  const Words words =
      philox4x32_10({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0});
  EXPECT_EQ(words, (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Philox, AgreesWithTheIndependentTwin) {
  std::ifstream file(ONESTEP_SOURCE_DIR "/tests/golden/philox4x32_10.json");
  ASSERT_TRUE(file.good());
  const auto golden = nlohmann::json::parse(file);
  const auto words_of = [](const nlohmann::json& list) {
    std::vector<std::uint32_t> words;
    for (const auto& item : list) {
      words.push_back(static_cast<std::uint32_t>(std::stoul(item.get<std::string>(), nullptr, 16)));
    }
    return words;
  };
  ASSERT_GE(golden["vectors"].size(), 10u);
  for (const auto& vector : golden["vectors"]) {
    const auto counter = words_of(vector["counter"]), key = words_of(vector["key"]);
    const auto expected = words_of(vector["output"]);
    const Words words =
        philox4x32_10({counter[0], counter[1], counter[2], counter[3]}, {key[0], key[1]});
    EXPECT_EQ(std::vector<std::uint32_t>(words.begin(), words.end()), expected) << vector.dump();
  }
}

TEST(KeyedWords, EveryPartOfTheKeyMatters) {
  std::set<Words> seen;
  const auto add = [&seen](std::uint64_t seed, RandomStream stream, std::uint32_t step,
                           std::uint64_t sample, std::uint32_t block) {
    seen.insert(keyed_words(seed, stream, step, sample, block));
  };
  add(1, RandomStream::kTrainNoise, 2, 3, 4);
  add(2, RandomStream::kTrainNoise, 2, 3, 4);
  add(1 + (std::uint64_t{1} << 32), RandomStream::kTrainNoise, 2, 3, 4);
  add(1, RandomStream::kFakeNoise, 2, 3, 4);
  add(1, RandomStream::kTrainNoise, 3, 3, 4);
  add(1, RandomStream::kTrainNoise, 2, 4, 4);
  add(1, RandomStream::kTrainNoise, 2, 3 + (std::uint64_t{1} << 32), 4);
  add(1, RandomStream::kTrainNoise, 2, 3, 5);
  EXPECT_EQ(seen.size(), 8u);
}

TEST(KeyedWords, PutsTheKeyWhereTheFormatSays) {
  const Words words =
      keyed_words(0x0123456789abcdefu, RandomStream::kSplit, 7, 0x0000a1b2c3d4e5f6u, 9);
  EXPECT_EQ(words,
            philox4x32_10({9, 0xc3d4e5f6u, 7, (14u << 16) | 0xa1b2u}, {0x89abcdefu, 0x01234567u}));
}

}  // namespace
}  // namespace onestep
