// reduction "fast": any number of ranks trains, finishes and resumes; "exact" refuses what would move bits.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <memory>

#include "common/checkpoint_manifest.h"
#include "common/run_folder.h"
#include "common/safetensors_file.h"
#include "integration/service.h"
#include "support/files.h"
#include "support/small_images.h"
#include "support/temp_folder.h"

namespace onestep {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using nlohmann::json;

constexpr int kIterations = 6, kBatch = 16;

// Every element of a model folder, in the order of names.
std::vector<float> weights_of(const std::string& folder) {
  const SafetensorsFile file(folder + "/model.safetensors");
  std::vector<float> all;
  for (const TensorView& tensor : file.tensors()) {
    std::vector<float> values(tensor.bytes.size() / sizeof(float));
    std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
    all.insert(all.end(), values.begin(), values.end());
  }
  return all;
}

// norm(a - b) / norm(b)
double relative_difference(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    difference += std::pow(static_cast<double>(a[i]) - b[i], 2);
    norm += std::pow(static_cast<double>(b[i]), 2);
  }
  return std::sqrt(difference / norm);
}

class FastReduction : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = std::make_unique<TempFolder>();
    write_small_images(*folder_ / "images.h5", 32, 1, 8, 2);
  }
  static void TearDownTestSuite() { folder_.reset(); }

  static ShellResult train(const std::string& run, const std::string& reduction, int ranks, int spec_ranks = 1) {
    const json network = {{"image_size", 8}, {"image_channels", 1}, {"model_channels", 16}, {"channels_per_head", 16}, {"label_dim", 2}};
    const json spec = {{"name", "t"}, {"kind", "train_teacher"}, {"seed", 3}, {"micro_batches", 4}, {"ranks", spec_ranks},
                       {"reduction", reduction}, {"dataset", {{"path", *folder_ / "images.h5"}}}, {"network", network},
                       {"images", kIterations * kBatch}, {"batch", kBatch}, {"ema_half_life_images", 100},
                       {"checkpoint", {{"every_iterations", 2}}}};
    spit(*folder_ / "spec.json", spec.dump());
    return shell("mpirun --allow-run-as-root --oversubscribe --bind-to none -n " + std::to_string(ranks) + " onestep-worker " +
                 *folder_ / "spec.json" + " --output " + path(run));
  }
  static std::string path(const std::string& run) { return *folder_ / run; }
  static std::vector<std::string> checkpoints(const std::string& run) { return list_checkpoints(checkpoints_folder(path(run))); }

  // As after a crash behind the checkpoint of iteration 4.
  static void go_back(const std::string& run) {
    ASSERT_EQ(checkpoints(run).size(), 3u);
    fs::remove_all(checkpoints(run).back());
    for (const char* name : {"outcome.json", "outcome-a1.json", "model.safetensors", "config.json"}) fs::remove(path(run) + "/" + name);
  }

  static std::unique_ptr<TempFolder> folder_;
};
std::unique_ptr<TempFolder> FastReduction::folder_;

// The order of a sum is another, so the last bits of a gradient are, 1e-7 of it; an update of AdamW is at most the learning rate
// times 1, whatever the gradient's size, and six of them carry such a difference on. Other rounding than that would show in 1e-2.
constexpr double kTolerance = 1e-3;

TEST_F(FastReduction, ThreeRanksFinishWhereOneDoes) {
  const ShellResult exact = train("exact1", "exact", 1), fast = train("fast3", "fast", 3);
  ASSERT_EQ(exact.exit_status, 0) << exact.error;
  ASSERT_EQ(fast.exit_status, 0) << fast.error;
  EXPECT_EQ(fast.last_line().at("state"), "succeeded");
  const JobOutcome outcome = *read_outcome(outcome_file(path("fast3")));
  EXPECT_EQ(outcome.result.at("ranks"), 3);
  EXPECT_LT(relative_difference(weights_of(path("fast3")), weights_of(path("exact1"))), kTolerance);
  // The manifest says that bits may differ, and every file of the folder is the manifest's.
  for (const std::string& folder : checkpoints("fast3")) {
    const CheckpointManifest manifest = read_checkpoint_manifest(folder, true);
    EXPECT_EQ(manifest.reduction, "fast");
    EXPECT_EQ(manifest.files.size(), 3u);
    EXPECT_EQ(names_in(folder).size(), 4u);
  }
  EXPECT_EQ(read_checkpoint_manifest(checkpoints("exact1").back(), false).reduction, "exact");
}

TEST_F(FastReduction, ResumesOnThreeRanksAndOnTwo) {
  const ShellResult whole = train("whole", "fast", 3);
  ASSERT_EQ(whole.exit_status, 0) << whole.error;
  const std::vector<float> expected = weights_of(path("whole"));
  for (const int ranks : {3, 2}) {
    const std::string run = "cut" + std::to_string(ranks);
    fs::copy(path("whole"), path(run), fs::copy_options::recursive);
    go_back(run);
    const ShellResult resumed = train(run, "fast", ranks);
    ASSERT_EQ(resumed.exit_status, 0) << resumed.error;
    EXPECT_THAT(resumed.error, HasSubstr("resumed from")) << ranks;
    EXPECT_THAT(resumed.error, HasSubstr("at iteration 4")) << ranks;
    EXPECT_EQ(read_outcome(outcome_file(path(run)))->result.at("ranks"), ranks);
    EXPECT_LT(relative_difference(weights_of(path(run)), expected), kTolerance) << ranks;
  }
}

TEST_F(FastReduction, ExactRefusesThreeRanks) {
  const ShellResult launched = train("refused", "exact", 3);
  EXPECT_EQ(launched.exit_status, 3);
  EXPECT_THAT(launched.error, HasSubstr("ranks: 3 can't share 4 micro-batches: expected a power of two that divides them"));
  const ShellResult specified = train("refused", "exact", 1, 3);
  EXPECT_EQ(specified.exit_status, 3);
  EXPECT_THAT(specified.error, HasSubstr("ranks 3 can't share 4 micro-batches: expected one of 1, 2, 4, found 3"));
  EXPECT_FALSE(fs::exists(path("refused")));
}

TEST_F(FastReduction, ARunKeepsItsReduction) {
  ASSERT_EQ(train("kept", "fast", 2).exit_status, 0);
  go_back("kept");
  const ShellResult other = train("kept", "exact", 2);
  EXPECT_EQ(other.exit_status, 4);
  EXPECT_THAT(other.error, HasSubstr("reduction"));
}

}  // namespace
}  // namespace onestep
