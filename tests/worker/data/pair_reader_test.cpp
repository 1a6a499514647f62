#include "worker/data/pair_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "common/durable_file.h"
#include "common/error.h"
#include "common/shard_plan.h"
#include "worker/data/global_order.h"

namespace onestep {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kRows = 50, kRowsPerShard = 16, kChannels = 1, kHeight = 2, kWidth = 3;
constexpr std::int64_t kElements = kChannels * kHeight * kWidth;
const std::string kTeacher(64, 'a');

float noise_value(std::int64_t row, std::int64_t element) {
  return static_cast<float>(100 * row + element);
}

// A pair set whose every number says where it belongs.
class PairReaderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = ::testing::TempDir() + "pair_reader_" +
              ::testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    PairSetManifest manifest;
    manifest.info.teacher_sha256 = kTeacher;
    manifest.info.sampler = R"({"kind":"heun"})";
    manifest.info.steps = 18;
    manifest.info.seed = 5;
    manifest.info.channels = kChannels;
    manifest.info.height = kHeight;
    manifest.info.width = kWidth;
    manifest.info.count = kRows;
    manifest.info.rows_per_shard = kRowsPerShard;
    for (const Shard& shard : plan_shards(kRows, kRowsPerShard, 1)) {
      PairRows rows;
      for (std::int64_t row = shard.first; row < shard.first + shard.count; ++row) {
        for (std::int64_t e = 0; e < kElements; ++e) {
          rows.noise.push_back(noise_value(row, e));
          rows.image.push_back(-noise_value(row, e));
        }
        rows.label.push_back(row % 10);
        rows.index.push_back(row);
      }
      manifest.shards.push_back(write_pair_shard(folder_, manifest.info, shard.index, 1, rows));
    }
    write_pair_manifest(folder_, manifest);
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::string folder_;
};

ErrorCode code_of(const std::function<void()>& action, std::string& message) {
  try {
    action();
  } catch (const Error& error) {
    message = error.what();
    return error.code();
  }
  message = "no error";
  return ErrorCode::kInternal;
}

void expect_rows(const PairBatch& batch, const std::vector<std::int64_t>& rows) {
  ASSERT_EQ(batch.noise.sizes(),
            (std::vector<std::int64_t>{std::ssize(rows), kChannels, kHeight, kWidth}));
  ASSERT_EQ(batch.image.sizes(), batch.noise.sizes());
  ASSERT_EQ(batch.label.size(0), std::ssize(rows));
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const auto r = static_cast<std::int64_t>(i);
    EXPECT_EQ(batch.index[r].item<std::int64_t>(), rows[i]);
    EXPECT_EQ(batch.label[r].item<std::int64_t>(), rows[i] % 10);
    for (std::int64_t e = 0; e < kElements; ++e) {
      EXPECT_EQ(batch.noise[r].flatten()[e].item<float>(), noise_value(rows[i], e));
      EXPECT_EQ(batch.image[r].flatten()[e].item<float>(), -noise_value(rows[i], e));
    }
  }
}

TEST_F(PairReaderTest, ReadsAnyRowsInTheOrderAsked) {
  const PairSet set(folder_, kTeacher);
  EXPECT_EQ(set.size(), kRows);
  EXPECT_EQ(set.digest(), pair_set_digest(folder_));
  expect_rows(set.read({49, 0, 15, 16, 31, 32}), {49, 0, 15, 16, 31, 32});
}

TEST_F(PairReaderTest, FollowsTheGlobalOrder) {
  const PairSet set(folder_, kTeacher);
  PairReader reader(set, {.seed = 9,
                          .max_pairs = 0,
                          .first_position = 24,
                          .global_count = 12,
                          .offset = 0,
                          .count = 12});
  for (std::int64_t iteration = 0; iteration < 10; ++iteration) {
    const PairBatch batch = reader.next();
    EXPECT_EQ(batch.position, 24 + 12 * iteration);
    std::vector<std::int64_t> rows;
    for (std::int64_t i = 0; i < 12; ++i)
      rows.push_back(ordered_index(9, kRows, batch.position + i));
    expect_rows(batch, rows);
  }
  EXPECT_GE(reader.waited_s(), 0);
}

TEST_F(PairReaderTest, RanksTogetherReadWhatOneReads) {
  const PairSet set(folder_, kTeacher);
  for (const std::int64_t ranks : {2, 4}) {
    PairReader again(set, {.seed = 1,
                           .max_pairs = 0,
                           .first_position = 0,
                           .global_count = 8,
                           .offset = 0,
                           .count = 8});
    std::vector<PairReader> parts;
    for (std::int64_t rank = 0; rank < ranks; ++rank) {
      parts.emplace_back(set, PairSlice{.seed = 1,
                                        .max_pairs = 0,
                                        .first_position = 0,
                                        .global_count = 8,
                                        .offset = rank * 8 / ranks,
                                        .count = 8 / ranks});
    }
    for (int iteration = 0; iteration < 9; ++iteration) {
      std::vector<torch::Tensor> noise, index;
      for (PairReader& part : parts) {
        const PairBatch batch = part.next();
        noise.push_back(batch.noise);
        index.push_back(batch.index);
      }
      const PairBatch expected = again.next();
      EXPECT_TRUE(torch::equal(torch::cat(noise), expected.noise));
      EXPECT_TRUE(torch::equal(torch::cat(index), expected.index));
    }
  }
}

TEST_F(PairReaderTest, FewerPairsAreTheFirstOnes) {
  const PairSet set(folder_, kTeacher);
  PairReader reader(
      set,
      {.seed = 1, .max_pairs = 5, .first_position = 0, .global_count = 5, .offset = 0, .count = 5});
  const auto index = std::get<0>(reader.next().index.sort());
  EXPECT_TRUE(torch::equal(index, torch::arange(5)));
}

TEST_F(PairReaderTest, RefusesASliceOutsideItsIteration) {
  const PairSet set(folder_, kTeacher);
  EXPECT_THROW(PairReader(set, {.seed = 1,
                                .max_pairs = kRows + 1,
                                .first_position = 0,
                                .global_count = 4,
                                .offset = 0,
                                .count = 4}),
               Error);
  EXPECT_THROW(PairReader(set, {.seed = 1,
                                .max_pairs = 0,
                                .first_position = 0,
                                .global_count = 4,
                                .offset = 2,
                                .count = 3}),
               Error);
  EXPECT_THROW(PairReader(set, {.seed = 1,
                                .max_pairs = 0,
                                .first_position = -1,
                                .global_count = 4,
                                .offset = 0,
                                .count = 4}),
               Error);
}

TEST_F(PairReaderTest, RefusesPairsOfAnotherTeacherNamingBoth) {
  const std::string other(64, 'b');
  std::string message;
  EXPECT_EQ(code_of([&] { PairSet(folder_, other); }, message), ErrorCode::kMismatch);
  EXPECT_THAT(message, ::testing::HasSubstr("pairs of another teacher"));
  EXPECT_THAT(message, ::testing::HasSubstr(other));
  EXPECT_THAT(message, ::testing::HasSubstr(kTeacher));
}

TEST_F(PairReaderTest, RefusesAMissingSetOrShard) {
  std::string message;
  EXPECT_EQ(code_of([&] { PairSet(folder_ + "/absent", kTeacher); }, message), ErrorCode::kNotFound)
      << message;
  fs::remove(folder_ + "/" + pair_shard_name(1));
  EXPECT_EQ(code_of([&] { PairSet(folder_, kTeacher); }, message), ErrorCode::kNotFound) << message;
  EXPECT_THAT(message, ::testing::HasSubstr(pair_shard_name(1)));
}

TEST_F(PairReaderTest, EachRankFindsAFlippedBitInItsOwnShards) {
  const std::string path = folder_ + "/" + pair_shard_name(2);
  std::string content = read_file(path);
  const float wanted = noise_value(33, 2);  // in shard 2
  const auto place =
      content.find(std::string(reinterpret_cast<const char*>(&wanted), sizeof wanted));
  ASSERT_NE(place, std::string::npos);
  content[place] = static_cast<char>(content[place] ^ 1);
  std::ofstream(path, std::ios::binary) << content;

  const PairSet set(folder_, kTeacher);  // attributes and layout are whole
  EXPECT_NO_THROW(set.verify(1, 2));     // shards 1 and 3
  std::string message;
  EXPECT_EQ(code_of([&] { set.verify(0, 2); }, message), ErrorCode::kCorrupt);
  EXPECT_THAT(message, ::testing::HasSubstr(pair_shard_name(2)));
  EXPECT_EQ(code_of([&] { set.verify(0, 1); }, message), ErrorCode::kCorrupt);
}

TEST_F(PairReaderTest, AWholeSetVerifies) {
  const PairSet set(folder_, kTeacher);
  for (int rank = 0; rank < 3; ++rank) EXPECT_NO_THROW(set.verify(rank, 3));
}

TEST_F(PairReaderTest, ATruncatedShardIsAnError) {
  const std::string path = folder_ + "/" + pair_shard_name(0);
  fs::resize_file(path, fs::file_size(path) - 100);
  std::string message;
  EXPECT_EQ(code_of([&] { PairSet(folder_, kTeacher); }, message), ErrorCode::kCorrupt) << message;
}

TEST_F(PairReaderTest, AnErrorOfTheThreadComesOutOfNext) {
  const PairSet set(folder_, kTeacher);
  fs::resize_file(folder_ + "/" + pair_shard_name(0), 10);  // after it was opened
  PairReader reader(set, {.seed = 1,
                          .max_pairs = 0,
                          .first_position = 0,
                          .global_count = kRows,
                          .offset = 0,
                          .count = kRows});
  std::string message;
  EXPECT_EQ(code_of([&] { reader.next(); }, message), ErrorCode::kCorrupt) << message;
  EXPECT_THAT(message, ::testing::HasSubstr(pair_shard_name(0)));
}

}  // namespace
}  // namespace onestep
