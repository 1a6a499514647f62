#include "cli/verify.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "common/checkpoint_manifest.h"
#include "common/durable_file.h"
#include "common/hash.h"
#include "common/job_spec.h"
#include "common/pair_file.h"
#include "common/run_folder.h"
#include "common/safetensors_file.h"
#include "support/files.h"
#include "support/temp_folder.h"

namespace onestep {
namespace {

using ::testing::HasSubstr;

std::string write_model(const std::string& folder, const std::string& format) {
  std::filesystem::create_directories(folder);
  const std::vector<float> values = {1.0f, 2.0f};
  const TensorView tensor{"w", DType::kF32, {2}, std::as_bytes(std::span(values))};
  const std::string digest = write_safetensors(folder + "/model.safetensors", {tensor}, {});
  const nlohmann::json config = {{"format", format}, {"format_version", 1}, {"kind", "distill"}, {"model_sha256", digest}};
  spit(folder + "/config.json", config.dump());
  if (format == "onestep-export") {
    spit(folder + "/README.md", "card");
    std::string sums;
    for (const char* name : {"README.md", "config.json", "model.safetensors"}) {
      sums += sha256_file(folder + "/" + name) + "  " + name + "\n";
    }
    spit(folder + "/SHA256SUMS", sums);
  }
  return digest;
}

void write_checkpoint(const std::string& folder) {
  std::filesystem::create_directories(folder);
  const std::vector<float> values(4, 0.5f);
  const std::string file = folder + "/rank-0-of-1.safetensors";
  CheckpointManifest manifest;
  manifest.kind = "distill";
  manifest.iteration = 5;
  manifest.images = 640;
  manifest.config_sha256 = sha256("config");
  manifest.config = nlohmann::json::object();
  manifest.state = nlohmann::json::object();
  manifest.processor = "p";
  const std::string digest =
      write_safetensors(file, {{"generator.parameters@0", DType::kF32, {4}, std::as_bytes(std::span(values))}}, {});
  manifest.files = {{"rank-0-of-1.safetensors", file_size(file), digest}};
  manifest.pieces = {{"generator.parameters", 0, 4, "rank-0-of-1.safetensors"}};
  write_checkpoint_manifest(folder, manifest);
}

void write_pairs(const std::string& folder) {
  std::filesystem::create_directories(folder);
  PairSetManifest manifest;
  manifest.info = {.teacher_sha256 = sha256("teacher"), .sampler = "{}", .steps = 18, .seed = 1, .channels = 1, .height = 2,
                   .width = 2, .count = 3, .rows_per_shard = 3, .prompts_sha256 = ""};
  const PairRows rows{std::vector<float>(12, 1.0f), std::vector<float>(12, 0.5f), {0, 1, 2}, {0, 1, 2}};
  manifest.shards = {write_pair_shard(folder, manifest.info, 0, 1, rows)};
  write_pair_manifest(folder, manifest);
}

void write_run(const std::string& run) {
  std::filesystem::create_directories(run);
  const nlohmann::json spec = {{"name", "export"}, {"kind", "export"}, {"model", "/m"}};
  spit(job_file(run), to_json(parse_job_spec(spec, "/", "test")).dump());
}

TEST(Verify, ASafetensorsFile) {
  const TempFolder folder;
  const std::string digest = write_model(folder / "m", "onestep-model");
  const auto parts = verify_path(folder / "m/model.safetensors");
  ASSERT_EQ(parts.size(), 1u);
  EXPECT_EQ(parts[0].type, "safetensors file");
  EXPECT_EQ(parts[0].digest, digest);
}

TEST(Verify, AModelFolderIsComparedWithItsConfig) {
  const TempFolder folder;
  const std::string digest = write_model(folder / "m", "onestep-model");
  EXPECT_EQ(verify_path(folder / "m/").at(0).digest, digest);
  const std::string file = folder / "m/model.safetensors";
  const std::string content = slurp(file);
  spit(file, with_flipped_bit(content, (content.size() - 1) * 8));
  const auto error = error_of([&] { verify_path(folder / "m"); });
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code, ErrorCode::kCorrupt);
  EXPECT_THAT(error->message, HasSubstr(digest));
}

TEST(Verify, EveryFileOfAnExportIsListed) {
  const TempFolder folder;
  const std::string path = folder / "export";
  write_model(path, "onestep-export");
  EXPECT_EQ(verify_path(path).at(0).type, "export");
  for (const char* name : {"README.md", "config.json", "model.safetensors", "SHA256SUMS"}) {
    const std::string file = path + "/" + name;
    const std::string content = slurp(file);
    spit(file, with_flipped_bit(content, 8 * (content.size() / 2)));
    const auto error = error_of([&] { verify_path(path); });
    ASSERT_TRUE(error) << name;
    EXPECT_EQ(error->code, ErrorCode::kCorrupt) << name;
    std::filesystem::remove(file);
    EXPECT_TRUE(error_of([&] { verify_path(path); })) << name;
    spit(file, content);
  }
  EXPECT_FALSE(error_of([&] { verify_path(path); }));
}

TEST(Verify, ACheckpointIsReadToItsLastByte) {
  const TempFolder folder;
  const std::string path = folder / "00000005-a1";
  write_checkpoint(path);
  EXPECT_EQ(verify_path(path).at(0).type, "checkpoint");
  EXPECT_THAT(verify_path(path).at(0).detail, HasSubstr("640 images"));
  const std::string file = path + "/rank-0-of-1.safetensors";
  const std::string content = slurp(file);
  spit(file, content.substr(0, content.size() - 1));
  EXPECT_EQ(error_of([&] { verify_path(path); })->code, ErrorCode::kCorrupt);
}

TEST(Verify, APairSetAndItsShards) {
  const TempFolder folder;
  const std::string path = folder / "pairs";
  write_pairs(path);
  EXPECT_EQ(verify_path(path).at(0).type, "pair set");
  EXPECT_EQ(verify_path(path + "/pairs-00000.h5").at(0).type, "pair shard");
  const std::string content = slurp(path + "/pairs-00000.h5");
  spit(path + "/pairs-00000.h5", with_flipped_bit(content, 8 * content.size() - 1));
  EXPECT_EQ(error_of([&] { verify_path(path); })->code, ErrorCode::kCorrupt);
  EXPECT_EQ(error_of([&] { verify_path(path + "/pairs-00000.h5"); })->code, ErrorCode::kCorrupt);
}

TEST(Verify, ARunFolderWithAllThatIsInIt) {
  const TempFolder folder;
  const std::string run = folder / "run";
  write_run(run);
  write_model(run, "onestep-model");
  write_checkpoint(checkpoints_folder(run) + "/" + checkpoint_folder_name(5, 1));
  const auto parts = verify_path(run);
  ASSERT_EQ(parts.size(), 3u);
  EXPECT_EQ(parts[0].type, "run folder");
  EXPECT_THAT(parts[0].detail, HasSubstr("not finished"));
  EXPECT_EQ(parts[1].type, "checkpoint");
  EXPECT_EQ(parts[2].type, "model");
}

TEST(Verify, AnExportedPipelineIsCheckedThroughItsFolders) {
  const TempFolder folder;
  spit(folder / "onestep.json", "{}");
  std::filesystem::create_directory(folder / "unet");
  spit(folder / "unet/config.json", "{\"a\": 1}");
  const auto list = [&](const std::string& name) { return sha256_file(folder / "unet/config.json") + "  " + name + "\n"; };
  spit(folder / "SHA256SUMS", list("unet/config.json"));
  const auto parts = verify_path(folder.path());
  ASSERT_EQ(parts.size(), 1u);
  EXPECT_EQ(parts[0].digest, sha256_file(folder / "SHA256SUMS"));
  for (const char* out : {"../unet/config.json", "unet/../a", "/etc/passwd", "unet/"}) {
    spit(folder / "SHA256SUMS", list(out));
    EXPECT_EQ(error_of([&] { verify_path(folder.path()); })->code, ErrorCode::kCorrupt) << out;
  }
  spit(folder / "SHA256SUMS", list("unet/config.json"));
  spit(folder / "unet/config.json", "{\"a\": 2}");
  EXPECT_THAT(error_of([&] { verify_path(folder.path()); })->message, HasSubstr("unet/config.json: sha256: expected"));
}

TEST(Verify, ThingsThatAreNotOnestepsAreRefused) {
  const TempFolder folder;
  EXPECT_EQ(error_of([&] { verify_path(folder / "nothing"); })->code, ErrorCode::kNotFound);
  EXPECT_EQ(error_of([&] { verify_path(folder.path()); })->code, ErrorCode::kNotFound);
  spit(folder / "a.txt", "x");
  EXPECT_EQ(error_of([&] { verify_path(folder / "a.txt"); })->code, ErrorCode::kUsage);
  spit(folder / "a.safetensors", "x");
  EXPECT_EQ(error_of([&] { verify_path(folder / "a.safetensors"); })->code, ErrorCode::kCorrupt);
  spit(folder / "a.h5", "x");
  EXPECT_EQ(error_of([&] { verify_path(folder / "a.h5"); })->code, ErrorCode::kCorrupt);
  spit(folder / "manifest.json", "{\"format\":\"something\"}");
  EXPECT_EQ(error_of([&] { verify_path(folder.path()); })->code, ErrorCode::kCorrupt);
  spit(folder / "manifest.json", "{");
  EXPECT_EQ(error_of([&] { verify_path(folder.path()); })->code, ErrorCode::kCorrupt);
}

}  // namespace
}  // namespace onestep
