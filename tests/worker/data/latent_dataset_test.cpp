#include "worker/data/latent_dataset.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/error.h"
#include "support/files.h"
#include "support/temp_folder.h"

namespace onestep {
namespace {

using ::testing::HasSubstr;

LatentDataset some_latents() {
  LatentDataset set;
  set.latents = torch::arange(3 * 4 * 2 * 2, torch::kFloat32).view({3, 4, 2, 2}) / 7;
  set.labels = torch::tensor({0, 4, 2}, torch::kInt64);
  set.num_classes = 5;
  set.images_sha256 = std::string(64, 'a');
  set.autoencoder_sha256 = std::string(64, 'b');
  return set;
}

std::string problem_of(const std::string& path, ErrorCode code) {
  try {
    read_latents(path);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "read";
  return "";
}

TEST(LatentDataset, ComesBackAsItWasWritten) {
  const TempFolder folder;
  const LatentDataset set = some_latents();
  write_latents(folder / "a.safetensors", set);
  write_latents(folder / "b.safetensors", set);
  EXPECT_EQ(slurp(folder / "a.safetensors"), slurp(folder / "b.safetensors"));
  const LatentDataset read = read_latents(folder / "a.safetensors");
  EXPECT_TRUE(torch::equal(read.latents, set.latents));
  EXPECT_TRUE(torch::equal(read.labels, set.labels));
  EXPECT_EQ(read.num_classes, 5);
  EXPECT_EQ(read.images_sha256, set.images_sha256);
  EXPECT_EQ(read.autoencoder_sha256, set.autoencoder_sha256);
  EXPECT_EQ(read.digest(), set.digest());
}

TEST(LatentDataset, TheDigestNamesEverything) {
  const std::string digest = some_latents().digest();
  LatentDataset changed = some_latents();
  changed.num_classes = 6;
  EXPECT_NE(changed.digest(), digest);
  changed = some_latents();
  changed.autoencoder_sha256[3] = 'c';
  EXPECT_NE(changed.digest(), digest);
  changed = some_latents();
  changed.labels[1] = 3;
  EXPECT_NE(changed.digest(), digest);
  changed = some_latents();
  changed.latents = changed.latents.view({3, 4, 4, 1});
  EXPECT_NE(changed.digest(), digest);
}

TEST(LatentDataset, DamageIsRefused) {
  const TempFolder folder;
  const std::string path = folder / "latents.safetensors";
  problem_of(path, ErrorCode::kNotFound);
  write_latents(path, some_latents());
  const std::string bytes = slurp(path);
  spit(path, with_flipped_bit(bytes, (bytes.size() - 3) * 8));
  EXPECT_THAT(problem_of(path, ErrorCode::kCorrupt), HasSubstr("the digest of its content"));
  spit(path, bytes.substr(0, bytes.size() - 4));
  problem_of(path, ErrorCode::kCorrupt);
  LatentDataset set = some_latents();
  set.labels[0] = 5;
  write_latents(path, set);
  EXPECT_THAT(problem_of(path, ErrorCode::kCorrupt), HasSubstr("tensor `labels`: expected classes below 5, found 2 to 5"));
  set = some_latents();
  set.labels = set.labels.narrow(0, 0, 2).clone();
  write_latents(path, set);
  EXPECT_THAT(problem_of(path, ErrorCode::kCorrupt), HasSubstr("tensor `labels`: expected 3 elements, found 2"));
}

}  // namespace
}  // namespace onestep
