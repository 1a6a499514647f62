#include "worker/run/checkpointer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <latch>

#include "common/durable_file.h"
#include "common/error.h"
#include "common/safetensors_file.h"

namespace onestep {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

class CheckpointerTest : public testing::Test {
 protected:
  CheckpointerTest()
      : folder_(fs::temp_directory_path() / ("checkpointer_test-" + std::to_string(getpid()) + "-" +
                                             testing::UnitTest::GetInstance()->current_test_info()->name())) {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  ~CheckpointerTest() override {
    set_fault_hook_for_tests(nullptr);
    fs::remove_all(folder_);
  }

  static CheckpointManifest manifest(std::int64_t iteration, int attempt, const WrittenShard& shard) {
    CheckpointManifest result;
    result.kind = "distill";
    result.attempt = attempt;
    result.iteration = iteration;
    result.config_sha256 = std::string(64, 'a');
    result.config = nlohmann::json::object();
    result.state = nlohmann::json::object();
    result.commit = "unknown";
    result.processor = "some";
    const std::string name = Checkpointer::shard_name(0, 1);
    result.files = {{name, shard.bytes, shard.sha256}};
    result.pieces = {{"generator.parameters", 0, 3, name}, {"generator.ema", 0, 2, name}};
    return result;
  }
  std::string save(Checkpointer& checkpointer, std::int64_t iteration, int attempt, int keep_last = 10) {
    checkpointer.snapshot(iteration, attempt, buffers());
    checkpointer.wait();
    return checkpointer.commit(manifest(iteration, attempt, checkpointer.done().value()), keep_last);
  }
  std::vector<CheckpointBuffer> buffers() { return {{"generator.parameters", 0, parameters_}, {"generator.ema", 0, ema_}}; }

  fs::path folder_;
  std::vector<float> parameters_ = {1, 2, 3}, ema_ = {4, 5};
};

TEST_F(CheckpointerTest, WritesWhatWasThereAtTheSnapshot) {
  Checkpointer checkpointer(folder_.string(), 0, 1);
  EXPECT_FALSE(checkpointer.done().has_value());
  checkpointer.snapshot(300, 2, buffers());
  parameters_.assign(3, -1.F);  // training goes on
  checkpointer.wait();
  const WrittenShard shard = checkpointer.done().value();
  const std::string folder = checkpointer.commit(manifest(300, 2, shard), 10);
  EXPECT_EQ(folder, (folder_ / "00000300-a2").string());
  EXPECT_NO_THROW(read_checkpoint_manifest(folder, /*verify_files=*/true));

  const SafetensorsFile file(folder + "/rank-0-of-1.safetensors");
  const TensorView& tensor = file.at("generator.parameters@0");
  EXPECT_EQ(tensor.dtype, DType::kF32);
  EXPECT_THAT(tensor.shape, ElementsAre(3));
  std::vector<float> values(3);
  std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
  EXPECT_THAT(values, ElementsAre(1.F, 2.F, 3.F));
}

TEST_F(CheckpointerTest, IsNoCheckpointBeforeItsManifest) {
  Checkpointer checkpointer(folder_.string(), 0, 1);
  checkpointer.snapshot(300, 1, buffers());
  checkpointer.wait();
  EXPECT_TRUE(checkpointer.done().has_value());
  EXPECT_FALSE(find_newest_checkpoint(folder_.string()).newest.has_value());
}

TEST_F(CheckpointerTest, OnlyTheCopyIsWaitedFor) {
  Checkpointer checkpointer(folder_.string(), 0, 1);
  std::latch may_write(1);
  set_fault_hook_for_tests([&](const char* call, const std::string&) {
    if (std::strcmp(call, "write") == 0) may_write.wait();
    return 0;
  });
  checkpointer.snapshot(300, 1, buffers());
  EXPECT_FALSE(checkpointer.done().has_value());  // the disk hangs, we don't
  EXPECT_THROW(checkpointer.snapshot(301, 1, buffers()), Error);
  EXPECT_THROW(checkpointer.commit(manifest(300, 1, {}), 1), Error);
  may_write.count_down();
  checkpointer.wait();
  EXPECT_TRUE(checkpointer.done().has_value());
}

TEST_F(CheckpointerTest, AFullDiskIsReportedAndLeavesNoCheckpoint) {
  Checkpointer checkpointer(folder_.string(), 0, 1);
  set_fault_hook_for_tests([](const char* call, const std::string&) { return std::strcmp(call, "write") == 0 ? ENOSPC : 0; });
  checkpointer.snapshot(300, 1, buffers());
  checkpointer.wait();
  try {
    static_cast<void>(checkpointer.done());
    FAIL() << "expected an error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kIo);
    EXPECT_THAT(error.what(), HasSubstr("No space left on device"));
    EXPECT_THAT(error.what(), HasSubstr("rank-0-of-1.safetensors"));
  }
  EXPECT_FALSE(checkpointer.done().has_value());
  set_fault_hook_for_tests(nullptr);
  EXPECT_FALSE(find_newest_checkpoint(folder_.string()).newest.has_value());
  EXPECT_NO_THROW(save(checkpointer, 301, 1));  // space was made
}

TEST_F(CheckpointerTest, AnErrorNobodyAskedForComesOutAtTheNextSnapshot) {
  Checkpointer checkpointer(folder_.string(), 0, 1);
  set_fault_hook_for_tests([](const char* call, const std::string&) { return std::strcmp(call, "fsync") == 0 ? EIO : 0; });
  checkpointer.snapshot(300, 1, buffers());
  checkpointer.wait();
  EXPECT_THROW(checkpointer.snapshot(301, 1, buffers()), Error);
}

TEST_F(CheckpointerTest, KeepsTheLastOnes) {
  Checkpointer checkpointer(folder_.string(), 0, 1);
  for (const std::int64_t iteration : {100, 200, 300}) save(checkpointer, iteration, 1, 2);
  EXPECT_THAT(list_checkpoints(folder_.string()),
              ElementsAre((folder_ / "00000200-a1").string(), (folder_ / "00000300-a1").string()));
}

TEST_F(CheckpointerTest, AnotherAttemptsFolderStaysAsItIs) {
  const fs::path dead = folder_ / "00000300-a1";
  fs::create_directories(dead);
  std::ofstream(dead / "rank-0-of-1.safetensors") << "half a file";
  Checkpointer checkpointer(folder_.string(), 0, 1);
  checkpointer.snapshot(300, 2, buffers());
  checkpointer.wait();
  EXPECT_EQ(read_file((dead / "rank-0-of-1.safetensors").string()), "half a file");
}

TEST_F(CheckpointerTest, EachRankWritesItsOwnShard) {
  Checkpointer first(folder_.string(), 0, 2), second(folder_.string(), 1, 2);
  first.snapshot(7, 1, {{"p", 0, parameters_}});
  second.snapshot(7, 1, {{"p", 3, ema_}});
  first.wait();
  second.wait();
  EXPECT_NE(first.done()->sha256, second.done()->sha256);
  EXPECT_TRUE(SafetensorsFile((folder_ / "00000007-a1/rank-1-of-2.safetensors").string()).find("p@3") != nullptr);
}

}  // namespace
}  // namespace onestep
