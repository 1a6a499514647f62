#include "common/hash.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "common/error.h"
#include "support/files.h"
#include "support/temp_folder.h"

namespace onestep {
namespace {

// FIPS 180-4's examples, as NIST publishes them.
constexpr const char* kOfAbc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
constexpr const char* kOfNothing =
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
constexpr const char* kOfMillionA =
    "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";

TEST(Sha256, PublishedExamples) {
  EXPECT_EQ(sha256("abc"), kOfAbc);
  EXPECT_EQ(sha256(""), kOfNothing);
  EXPECT_EQ(sha256(std::string(1'000'000, 'a')), kOfMillionA);
}

TEST(Sha256, PiecesGiveTheDigestOfTheWhole) {
  Sha256 hash;
  hash.update("a", 1);
  hash.update(nullptr, 0);
  Sha256 moved = std::move(hash);
  moved.update("bc", 2);
  EXPECT_EQ(moved.finish(), kOfAbc);
}

TEST(Sha256, FileOfMoreThanOneBuffer) {
  const TempFolder folder;
  const std::string content(3'000'001, 'x');
  spit(folder / "file", content);
  EXPECT_EQ(sha256_file(folder / "file"), sha256(content));
}

TEST(Sha256, AbsentFileIsNamed) {
  const TempFolder folder;
  const auto error = error_of([&] { sha256_file(folder / "absent"); });
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code, ErrorCode::kNotFound);
  EXPECT_NE(error->message.find(folder / "absent"), std::string::npos);
}

TEST(Sha256, FolderIsAnIoError) {
  const TempFolder folder;
  const auto error = error_of([&] { sha256_file(folder.path()); });
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code, ErrorCode::kIo);
}

// XXH3-128 of the empty input, seed 0: 99aa06d3014798d86001c324468d497f (xxhsum -H2 of an empty
// file).
TEST(Xxh3, LowWordFirst) {
  const auto digest = xxh3_128("", 0);
  EXPECT_EQ(digest[0], 0x6001c324468d497fULL);
  EXPECT_EQ(digest[1], 0x99aa06d3014798d8ULL);
}

TEST(Xxh3, EveryFlippedBitShows) {
  const std::string content(300, 'q');
  const auto digest = xxh3_128(content.data(), content.size());
  for (std::size_t bit = 0; bit < 8 * content.size(); ++bit) {
    const std::string flipped = with_flipped_bit(content, bit);
    ASSERT_NE(xxh3_128(flipped.data(), flipped.size()), digest) << "bit " << bit;
  }
}

}  // namespace
}  // namespace onestep
