// `evaluate` of a trained model against an image file by Inception on keyed weights: the worker, end to end.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <set>

#include "common/checkpoint_manifest.h"
#include "common/hash.h"
#include "common/run_folder.h"
#include "integration/service.h"
#include "support/files.h"
#include "support/keyed_feature_nets.h"
#include "support/small_images.h"
#include "support/temp_folder.h"
#include "worker/metrics/frechet.h"
#include "worker/metrics/picture.h"
#include "worker/metrics/reference_stats.h"
#include "worker/models/inception.h"

namespace onestep {
namespace {

using ::testing::HasSubstr;
using nlohmann::json;

constexpr std::int64_t kReal = 24, kDraws = 14, kSide = 16;
constexpr std::int64_t kFeatures = Inception::kNumFeatures;

// A detector, an image file and a teacher of a few iterations on it, for all tests here.
class ModelEvaluation : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = std::make_unique<TempFolder>();
    const KeyedWeights weights(inception_tensors());
    write_safetensors(detector(), weights.views, {});
    dataset_digest_ = write_small_images(dataset(), kReal, 3, kSide, 2);
    const json network = {{"image_size", kSide}, {"image_channels", 3}, {"pixel_unshuffle", 2},
                          {"model_channels", 16}, {"channels_per_head", 16}, {"label_dim", 2}};
    spit(*folder_ / "teacher.json", json{{"name", "teacher"}, {"kind", "train_teacher"}, {"seed", 3},
                                         {"dataset", {{"path", dataset()}}}, {"network", network},
                                         {"images", 64}, {"batch", 8}}.dump());
    const ShellResult run = shell("onestep-worker " + *folder_ / "teacher.json" + " --output " + teacher());
    if (run.exit_status != 0) throw std::runtime_error(run.error);
  }
  static void TearDownTestSuite() { folder_.reset(); }

  static std::string detector() { return *folder_ / "inception.safetensors"; }
  static std::string dataset() { return *folder_ / "real.h5"; }
  static std::string teacher() { return *folder_ / "teacher"; }

  static json spec(const json& changes) {
    json whole = {{"name", "e"}, {"kind", "evaluate"}, {"seed", 9}, {"model", teacher()}, {"detector", detector()},
                  {"dataset", {{"path", dataset()}}}, {"count", kDraws}, {"batch", 4},
                  {"sampler", {{"kind", "heun"}, {"steps", 3}, {"S_churn", 20}}},
                  {"metrics", {"fid", "is", "kid", "precision_recall"}}};
    whole.update(changes);
    return whole;
  }
  static ShellResult run(const std::string& name, const json& spec, int ranks = 1) {
    spit(*folder_ / (name + ".json"), spec.dump());
    return shell("mpirun --allow-run-as-root --oversubscribe --bind-to none -n " + std::to_string(ranks) + " onestep-worker " +
                 *folder_ / (name + ".json") + " --output " + *folder_ / name);
  }
  static JobOutcome outcome(const std::string& name) { return *read_outcome(outcome_file(*folder_ / name)); }
  static ReferenceStats statistics(const std::string& name, const std::string& file, std::int64_t count) {
    ReferenceStats stats = read_reference_stats(*folder_ / name + "/" + file, kFeatures);
    stats.stats.count = count;  // which the file does not say
    return stats;
  }

  static std::unique_ptr<TempFolder> folder_;
  static std::string dataset_digest_;
};
std::unique_ptr<TempFolder> ModelEvaluation::folder_;
std::string ModelEvaluation::dataset_digest_;

TEST_F(ModelEvaluation, TheResultSaysWhatItWasMadeOfUnderEveryResize) {
  std::set<double> distances;
  for (const std::string resize : {"tf1", "pytorch_fid", "clean_fid"}) {
    const ShellResult done = run(resize, spec({{"resize", resize}}));
    ASSERT_EQ(done.exit_status, 0) << done.error;
    const json result = outcome(resize).result;
    EXPECT_EQ(result.at("source"), "model");
    EXPECT_EQ(result.at("resize"), resize);
    EXPECT_EQ(result.at("lanczos"), 0);
    EXPECT_EQ(result.at("weights"), "ema");
    EXPECT_EQ(result.at("noise_seed"), 9);
    EXPECT_EQ(result.at("first_image"), 0);
    EXPECT_EQ(result.at("count"), kDraws);
    EXPECT_EQ(result.at("images"), 64);
    EXPECT_EQ(result.at("model_sha256"), sha256_file(teacher() + "/model.safetensors"));
    EXPECT_EQ(result.at("detector"), "inception-2015-12-05");
    EXPECT_EQ(result.at("detector_sha256"), sha256_file(detector()));
    EXPECT_EQ(result.at("dataset_sha256"), dataset_digest_);
    EXPECT_EQ(result.at("reference_count"), kReal);
    EXPECT_EQ(result.at("kid_subset_size"), kDraws);  // all that both sides have
    EXPECT_THAT(done.error, HasSubstr("kid: estimates of 14 images a side, all there are; published figures take 1000"));
    EXPECT_EQ(result.at("frechet"), result.at("fid"));
    EXPECT_GE(result.at("inception_score").get<double>(), 1);
    for (const char* share : {"precision", "recall"}) {
      EXPECT_GE(result.at(share).get<double>(), 0);
      EXPECT_LE(result.at(share).get<double>(), 1);
    }
    // The statistics on disk are those that were compared: the same fp64 numbers, so the same distance but for the last bits.
    const double again = frechet_distance(statistics(resize, "reference.npz", kReal).stats,
                                          statistics(resize, "statistics.npz", kDraws).stats);
    EXPECT_NEAR(result.at("fid").get<double>() / again, 1, 1e-9);
    distances.insert(again);
  }
  EXPECT_EQ(distances.size(), 3u);  // the resizes are not interchangeable
}

TEST_F(ModelEvaluation, ChurnedSamplesHaveTheSameBitsOnAnyRanks) {
  std::vector<std::string> digests, judged, references;
  for (const int ranks : {1, 2, 4}) {
    const std::string name = "ranks" + std::to_string(ranks);
    const ShellResult done = run(name, spec(json::object()), ranks);
    ASSERT_EQ(done.exit_status, 0) << done.error;
    EXPECT_EQ(outcome(name).result.at("ranks"), ranks);
    digests.push_back(outcome(name).digest);
    judged.push_back(sha256_file(*folder_ / name + "/statistics.npz"));
    references.push_back(sha256_file(*folder_ / name + "/reference.npz"));
  }
  for (const auto& values : {digests, judged, references}) EXPECT_THAT(values, ::testing::Each(values.front()));
}

TEST_F(ModelEvaluation, RawAndAverageAreTwoModels) {
  const std::string checkpoint = list_checkpoints(checkpoints_folder(teacher())).back();
  const json few = {{"model", checkpoint}, {"metrics", {"fid"}}};
  std::map<std::string, JobOutcome> outcomes;
  for (const std::string weights : {"ema", "raw"}) {
    json changed = spec(few);
    changed["weights"] = weights;
    const ShellResult done = run(weights, changed);
    ASSERT_EQ(done.exit_status, 0) << done.error;
    outcomes[weights] = outcome(weights);
    EXPECT_EQ(outcomes[weights].result.at("weights"), weights);
    EXPECT_FALSE(outcomes[weights].result.contains("kid_subset_size"));
  }
  EXPECT_NE(outcomes["raw"].result.at("model_sha256"), outcomes["ema"].result.at("model_sha256"));
  EXPECT_NE(outcomes["raw"].result.at("fid"), outcomes["ema"].result.at("fid"));
  // The run folder holds the average alone.
  const ShellResult refused = run("no_raw", spec({{"weights", "raw"}}));
  EXPECT_EQ(refused.exit_status, 4);
  EXPECT_THAT(refused.error, HasSubstr("expected \"raw\" weights, found \"ema\""));
}

TEST_F(ModelEvaluation, TheReferencesOwnPicturesAreAtDistanceZero) {
  std::filesystem::create_directory(*folder_ / "pictures");
  for (std::int64_t i = 0; i < kReal; ++i) {
    const auto planes = small_picture(i, 3, kSide);
    Picture picture{kSide, kSide, {}};
    for (std::int64_t pixel = 0; pixel < kSide * kSide; ++pixel) {
      for (std::int64_t c = 0; c < 3; ++c) picture.rgb.push_back(planes[static_cast<std::size_t>(c * kSide * kSide + pixel)]);
    }
    write_png(*folder_ / "pictures/" + static_cast<char>('a' + i) + ".png", picture);
  }
  json same = spec({{"source", "images"}, {"images", *folder_ / "pictures"}, {"count", 1000}, {"batch", 5}});
  same.erase("model");
  const ShellResult done = run("same", same, 2);
  ASSERT_EQ(done.exit_status, 0) << done.error;
  const json result = outcome("same").result;
  EXPECT_EQ(result.at("count"), kReal);
  EXPECT_EQ(result.at("precision"), 1);
  EXPECT_EQ(result.at("recall"), 1);
  // 23 directions of 2,048 differ from 0: roots of rounding, 1e-8 each of the trace.
  const auto stats = statistics("same", "statistics.npz", kReal).stats;
  EXPECT_NEAR(result.at("fid").get<double>(), 0, 1e-6 * stats.covariance.trace().item<double>());
  EXPECT_EQ(sha256_file(*folder_ / "same/statistics.npz"), sha256_file(*folder_ / "same/reference.npz"));
}

TEST_F(ModelEvaluation, WhatDoesNotFitIsRefused) {
  const ShellResult few = run("few", spec({{"metrics", {"precision_recall"}}, {"count", 3}}));
  EXPECT_EQ(few.exit_status, 4);
  EXPECT_THAT(few.error, HasSubstr("precision_recall: expected at least 4 judged images, found 3"));
  json alone = spec({{"metrics", {"kid"}}});
  alone.erase("dataset");
  write_reference_stats(*folder_ / "alone.npz", {2, torch::zeros({kFeatures}, torch::kFloat64),
                                                 torch::zeros({kFeatures, kFeatures}, torch::kFloat64)});
  alone["reference"] = *folder_ / "alone.npz";
  const ShellResult no_features = run("alone", alone);
  EXPECT_EQ(no_features.exit_status, 4);
  EXPECT_THAT(no_features.error, HasSubstr("alone.npz: key `feats`: expected the features of each image"));
}

}  // namespace
}  // namespace onestep
