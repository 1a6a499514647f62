// `onestep evaluate` on a folder of pictures, alone and over ranks, by Inception on keyed weights.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>

#include "common/hash.h"
#include "common/npz_file.h"
#include "integration/service.h"
#include "support/files.h"
#include "support/keyed_feature_nets.h"
#include "support/temp_folder.h"
#include "worker/metrics/picture.h"
#include "worker/models/inception.h"

namespace onestep {
namespace {

using ::testing::HasSubstr;

constexpr std::int64_t kCount = 13;

// Weights, pictures and statistics for all tests here.
class Evaluation : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = std::make_unique<TempFolder>();
    const KeyedWeights weights(inception_tensors());
    write_safetensors(detector(), weights.views, {});
    std::filesystem::create_directory(images());
    for (std::int64_t i = 0; i < kCount; ++i) {
      const std::int64_t side = i % 2 == 0 ? 32 : 40;
      const auto pixels = (keyed_picture(side, side) + 5 * i).squeeze(0).permute({1, 2, 0}).contiguous();
      const auto* data = pixels.const_data_ptr<std::uint8_t>();
      write_png(images() + "/" + std::string(1, static_cast<char>('a' + i)) + ".png", {side, side, {data, data + pixels.numel()}});
    }
  }
  static void TearDownTestSuite() { folder_.reset(); }

  static std::string detector() { return *folder_ / "inception.safetensors"; }
  static std::string images() { return *folder_ / "images"; }
  static std::string command(const std::string& more) {
    return "onestep evaluate --images " + images() + " --detector " + detector() + " --json " + more;
  }

  static std::unique_ptr<TempFolder> folder_;
};
std::unique_ptr<TempFolder> Evaluation::folder_;

TEST_F(Evaluation, PicturesAgainstTheirOwnStatisticsAreAtDistanceZero) {
  const std::string statistics = *folder_ / "own.npz";
  const ShellResult made = shell(command("--metrics is --save " + statistics));
  ASSERT_EQ(made.exit_status, 0) << made.error;
  EXPECT_GE(made.last_line().at("inception_score").get<double>(), 1);
  EXPECT_EQ(made.last_line().at("count"), kCount);
  EXPECT_EQ(NpzFile(statistics).array("sigma").shape, (std::vector<std::int64_t>{2048, 2048}));

  const ShellResult judged = shell(command("--reference " + statistics));
  ASSERT_EQ(judged.exit_status, 0) << judged.error;
  const nlohmann::json result = judged.last_line();
  // Twelve directions of 2,048; the reference's count is not in its file: roots of rounding, 1e-8 each of the trace.
  const double trace = [&] {
    const NpyArray sigma = NpzFile(statistics).array("sigma");
    double sum = 0;
    for (std::size_t i = 0; i < 2048; ++i) sum += sigma.values[i * 2049];
    return sum;
  }();
  EXPECT_NEAR(result.at("fid").get<double>(), 0, 1e-6 * trace);
  EXPECT_EQ(result.at("resize"), "tf1");
  EXPECT_EQ(result.at("detector_sha256"), sha256_file(detector()));
  EXPECT_EQ(result.at("reference_sha256"), sha256_file(statistics));
  EXPECT_TRUE(result.contains("images_sha256"));
}

TEST_F(Evaluation, FiguresHaveTheSameBitsOnAnyRanks) {
  const nlohmann::json spec = {{"name", "e"},           {"kind", "evaluate"}, {"source", "images"}, {"images", images()},
                               {"detector", detector()}, {"batch", 3},        {"metrics", {"is"}},  {"count", 100}};
  spit(*folder_ / "e.json", spec.dump());
  std::string digest;
  std::string statistics;
  for (const int ranks : {1, 2, 4, 8}) {
    const std::string run = *folder_ / ("run" + std::to_string(ranks));
    const ShellResult result = shell("mpirun --allow-run-as-root --oversubscribe --bind-to none -n " + std::to_string(ranks) +
                                     " onestep-worker " + (*folder_ / "e.json") + " --output " + run);
    ASSERT_EQ(result.exit_status, 0) << result.error;
    if (ranks == 1) {
      digest = result.last_line().at("digest");
      statistics = slurp(run + "/statistics.npz");
    }
    EXPECT_EQ(result.last_line().at("digest"), digest) << ranks;
    EXPECT_EQ(slurp(run + "/statistics.npz"), statistics) << ranks;
  }
}

TEST_F(Evaluation, WhatDoesNotFitIsRefused) {
  write_npz(*folder_ / "narrow.npz", {{"mu", {{2}, {1, 2}}}, {"sigma", {{2, 2}, {1, 0, 0, 1}}}});
  const ShellResult narrow = shell(command("--reference " + (*folder_ / "narrow.npz")));
  EXPECT_EQ(narrow.exit_status, 4);
  EXPECT_THAT(narrow.error, HasSubstr("narrow.npz: key `mu`: expected shape [2048], found [2]"));
  spit(*folder_ / "other.safetensors", slurp(detector()).substr(0, 1000));
  EXPECT_EQ(shell("onestep evaluate --images " + images() + " --metrics is --detector " + (*folder_ / "other.safetensors")).exit_status, 4);
  EXPECT_EQ(shell(command("--metrics nonsense")).exit_status, 3);
}

}  // namespace
}  // namespace onestep
