#include "common/embedding_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "common/hash.h"
#include "support/files.h"
#include "support/temp_folder.h"

namespace onestep {
namespace {

using ::testing::HasSubstr;

constexpr std::int64_t kRows = 5, kTokens = 3, kWidth = 2;
constexpr std::size_t kRow = kTokens * kWidth;

EmbeddingFileInfo five_prompts() {
  return {.count = kRows, .tokens = kTokens, .width = kWidth, .prompts_sha256 = sha256("p"), .text_encoder_sha256 = sha256("e"), .sha256 = {}};
}

// Row -1 is the null text: values 0 to 5; row i goes on from there.
std::vector<float> embedding_rows(std::int64_t first, std::int64_t count) {
  std::vector<float> values(static_cast<std::size_t>(count) * kRow);
  std::iota(values.begin(), values.end(), static_cast<float>((first + 1) * static_cast<std::int64_t>(kRow)));
  return values;
}

class EmbeddingFiles : public ::testing::Test {
 protected:
  EmbeddingFileInfo write(const std::string& name, const std::vector<std::int64_t>& counts) {
    EmbeddingWriter writer(folder_ / name, five_prompts(), embedding_rows(-1, 1));
    std::int64_t first = 0;
    for (const std::int64_t count : counts) {
      writer.add(embedding_rows(first, count));
      first += count;
    }
    return writer.finish();
  }
  TempFolder folder_;
};

TEST_F(EmbeddingFiles, WhatIsWrittenIsRead) {
  const EmbeddingFileInfo written = write("e.h5", {2, 3});
  const EmbeddingFile file(folder_ / "e.h5");
  EXPECT_EQ(file.info().digest(), written.digest());
  EXPECT_EQ(file.info().count, kRows);
  EXPECT_EQ(file.info().prompts_sha256, sha256("p"));
  const auto all = embedding_rows(-1, kRows + 1);
  EXPECT_EQ(file.info().sha256, sha256(all.data(), all.size() * sizeof(float)));
  file.verify();
  std::vector<float> row(kRow);
  file.read_null_text(row);
  EXPECT_EQ(row, embedding_rows(-1, 1));
  for (const std::int64_t i : {4, 0, 2}) {
    file.read_row(i, row);
    EXPECT_EQ(row, embedding_rows(i, 1));
  }
  EXPECT_EQ(error_of([&] { file.read_row(kRows, row); })->code, ErrorCode::kInternal);
}

TEST_F(EmbeddingFiles, EqualRowsAreEqualBytesHoweverTheyCome) {
  write("a.h5", {5});
  write("b.h5", {1, 1, 2, 1});
  EXPECT_EQ(slurp(folder_ / "a.h5"), slurp(folder_ / "b.h5"));
}

TEST_F(EmbeddingFiles, AnUnfinishedFileLeavesNothing) {
  EXPECT_TRUE(error_of([&] { write("a.h5", {2}); }));
  EXPECT_TRUE(error_of([&] { write("a.h5", {2, 4}); }));
  EXPECT_THAT(names_in(folder_.path()), ::testing::IsEmpty());
}

// Every bit of the file: a reader that verifies sees it, or the bit says nothing.
TEST_F(EmbeddingFiles, NoFlippedBitPassesUnseen) {
  const EmbeddingFileInfo written = write("e.h5", {5});
  const std::string content = slurp(folder_ / "e.h5");
  std::size_t refused = 0, harmless = 0;
  for (std::size_t bit = 0; bit < content.size() * 8; bit += 3) {
    spit(folder_ / "bad.h5", with_flipped_bit(content, bit));
    const auto error = error_of([&] {
      const EmbeddingFile file(folder_ / "bad.h5");
      file.verify();
      if (file.info().digest() != written.digest()) throw Error(ErrorCode::kCorrupt, "another digest");
    });
    if (error) {
      EXPECT_EQ(error->code, ErrorCode::kCorrupt) << bit << ": " << error->message;
      ++refused;
    } else {
      ++harmless;
    }
  }
  EXPECT_GT(refused, kRow * (kRows + 1) * 32 / 3);  // at least the values
  EXPECT_GT(harmless, 0u);                          // free space of the format
}

TEST_F(EmbeddingFiles, OtherFilesAreRefusedByName) {
  write("e.h5", {5});
  const std::string content = slurp(folder_ / "e.h5");
  spit(folder_ / "short.h5", content.substr(0, content.size() - 8));
  spit(folder_ / "text.h5", "not HDF5");
  for (const char* name : {"short.h5", "text.h5"}) {
    const auto error = error_of([&] { EmbeddingFile{folder_ / name}; });
    ASSERT_TRUE(error) << name;
    EXPECT_EQ(error->code, ErrorCode::kCorrupt);
    EXPECT_THAT(error->message, HasSubstr(folder_ / name));
  }
  EXPECT_EQ(error_of([&] { EmbeddingFile{folder_ / "none.h5"}; })->code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace onestep
