#include "common/safetensors_index.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>

#include "support/files.h"
#include "support/temp_folder.h"

namespace onestep {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class TensorFilesTest : public ::testing::Test {
 protected:
  TensorFilesTest() {
    write("model-00001-of-00002.safetensors", {"a", "c"});
    write("model-00002-of-00002.safetensors", {"b"});
    index(R"({"metadata":{"total_size":24},"weight_map":{"a":"model-00001-of-00002.safetensors",)"
          R"("b":"model-00002-of-00002.safetensors","c":"model-00001-of-00002.safetensors"}})");
  }

  void write(const std::string& name, const std::vector<std::string>& tensors) {
    std::vector<TensorView> views;
    for (const std::string& tensor : tensors)
      views.push_back({tensor, DType::kF32, {2}, std::as_bytes(std::span(values_))});
    write_safetensors(folder_ / name, views, {});
  }
  void index(const std::string& text) { spit(path_, text); }

  void expect_refused(ErrorCode code, const std::vector<std::string>& parts) {
    const auto error = error_of([&] { TensorFiles files(path_); });
    ASSERT_TRUE(error);
    EXPECT_EQ(error->code, code) << error->message;
    for (const std::string& part : parts)
      EXPECT_THAT(error->message, AllOf(HasSubstr(folder_.path()), HasSubstr(part)));
  }

  const std::vector<float> values_{1.5f, -2.0f};
  const TempFolder folder_;
  const std::string path_ = folder_ / "model.safetensors.index.json";
};

TEST_F(TensorFilesTest, ShardsReadAsOne) {
  TensorFiles opened(path_);
  const TensorFiles files = std::move(opened);
  EXPECT_TRUE(files.is_sharded());
  EXPECT_EQ(files.files().size(), 2u);
  ASSERT_EQ(files.tensors().size(), 3u);
  EXPECT_EQ(files.tensors()[1].name, "b");
  EXPECT_EQ(files.at("c").shape, (std::vector<std::int64_t>{2}));
  EXPECT_EQ(files.find("d"), nullptr);
  files.release(files.at("a"));  // its bytes can still be read
  EXPECT_EQ(std::memcmp(files.at("a").bytes.data(), values_.data(), 8), 0);
}

TEST_F(TensorFilesTest, OneFileReadsAsItself) {
  const TensorFiles files(folder_ / "model-00001-of-00002.safetensors");
  EXPECT_FALSE(files.is_sharded());
  EXPECT_EQ(files.tensors().size(), 2u);
}

TEST_F(TensorFilesTest, EveryDisagreementIsNamedAtOnce) {
  index(
      R"({"weight_map":{"a":"model-00001-of-00002.safetensors","d":"model-00002-of-00002.safetensors",)"
      R"("c":"model-00002-of-00002.safetensors"}})");
  expect_refused(ErrorCode::kMismatch,
                 {"\"d\": expected in model-00002",
                  "\"b\" in model-00002-of-00002.safetensors: expected an entry",
                  "\"c\": expected in model-00002-of-00002.safetensors alone"});
}

TEST_F(TensorFilesTest, NoPathLeavesTheFolder) {
  for (const char* name :
       {"../model.safetensors", "/etc/model.safetensors", "sub/model.safetensors", "..", "",
        "model.bin", "a\\u0000.safetensors"}) {
    index(std::string(R"({"weight_map":{"a":")") + name + "\"}}");
    expect_refused(ErrorCode::kCorrupt, {"/weight_map/a", "in this folder"});
  }
}

TEST_F(TensorFilesTest, OtherIndexesAreRefused) {
  for (const char* text :
       {"", "[]", "{", "{}", R"({"weight_map":[]})", R"({"weight_map":{}})",
        R"({"weight_map":{"a":1}})", R"({"weight_map":{"a":"x.safetensors","a":"y.safetensors"}})",
        R"({"weight_map":{"a":"x.safetensors"},"more":1})"}) {
    index(text);
    expect_refused(ErrorCode::kCorrupt, {"index.json"});
  }
  index(R"({"weight_map":{"a":"absent.safetensors"}})");
  expect_refused(ErrorCode::kNotFound, {"absent.safetensors"});
  std::filesystem::remove(path_);
  expect_refused(ErrorCode::kNotFound, {"index.json"});
}

TEST_F(TensorFilesTest, ADamagedShardIsNamed) {
  const std::string shard = folder_ / "model-00002-of-00002.safetensors";
  const std::string content = slurp(shard);
  spit(shard, content.substr(0, content.size() - 1));
  expect_refused(ErrorCode::kCorrupt, {"model-00002-of-00002.safetensors", "truncated"});
}

}  // namespace
}  // namespace onestep
