#include "worker/metrics/quality.h"

#include <gtest/gtest.h>

#include <cmath>

#include "common/error.h"

namespace onestep {
namespace {

torch::Tensor one_hot_logits(const std::vector<std::int64_t>& classes, std::int64_t num_classes) {
  auto logits = torch::zeros({std::ssize(classes), num_classes});
  for (std::size_t i = 0; i < classes.size(); ++i)
    logits[static_cast<std::int64_t>(i)][classes[i]] = 1;
  return logits;
}

TEST(Quality, PixelStatsByHand) {
  // Class 0: pixels {0, 1} and {-1, 1}; class 1: {.5, .5} and {.5, -.5}.
  const auto images =
      torch::tensor({0.0f, 1.0f, -1.0f, 1.0f, .5f, .5f, .5f, -.5f}).view({4, 1, 1, 2});
  const auto labels = torch::tensor({0, 0, 1, 1}, torch::kInt64);
  const auto stats = pixel_stats(images, labels, 2);
  EXPECT_DOUBLE_EQ(stats.mean, 2.0 / 8);
  // Deviations sqrt(1/2), 0; 0, sqrt(1/2): divided by n - 1.
  EXPECT_NEAR(stats.spread, std::sqrt(0.5) / 2, 1e-15);
}

TEST(Quality, PixelsAreClamped) {
  const auto labels = torch::tensor({0, 0}, torch::kInt64);
  const auto far = pixel_stats(torch::tensor({-7.0f, 9.0f}).view({2, 1, 1, 1}), labels, 1);
  EXPECT_EQ(far.mean, 0);
  EXPECT_NEAR(far.spread, std::sqrt(2.0), 1e-15);
}

TEST(Quality, AClassOfOneImageTakesNoPartInTheSpread) {
  const auto images = torch::tensor({0.0f, 1.0f, 0.3f}).view({3, 1, 1, 1});
  EXPECT_NEAR(pixel_stats(images, torch::tensor({0, 0, 1}, torch::kInt64), 3).spread,
              std::sqrt(0.5), 1e-15);
  EXPECT_THROW(pixel_stats(images, torch::tensor({0, 1, 2}, torch::kInt64), 3), Error);
}

TEST(Quality, MeasuresAgainstTheRealOnes) {
  torch::manual_seed(4);
  const auto labels = torch::arange(40) % 4;
  const auto real = torch::rand({40, 1, 3, 3}) - 0.5;
  const auto stats = pixel_stats(real, labels, 4);
  auto detected = std::vector<std::int64_t>();
  for (std::int64_t i = 0; i < 40; ++i) detected.push_back(i % 4);
  const auto same = measure_quality(real, labels, one_hot_logits(detected, 4), stats);
  EXPECT_EQ(same.class_accuracy, 1);
  EXPECT_EQ(same.spread, 1);
  EXPECT_EQ(same.mean_shift, 0);
  EXPECT_EQ(same.class_share, std::vector<double>(4, 0.25));
  EXPECT_EQ(same.class_balance, 1);

  const auto changed =
      measure_quality(real * 0.5 + 0.25, labels, one_hot_logits(detected, 4), stats);
  EXPECT_NEAR(changed.spread, 0.5, 1e-6);  // images are fp32
  EXPECT_NEAR(changed.mean_shift, 0.25 - 0.5 * stats.mean, 1e-7);
}

TEST(Quality, SeesWrongAndMissingClasses) {
  const auto images = torch::zeros({8, 1, 1, 1});
  const auto labels = torch::tensor({0, 1, 2, 3, 0, 1, 2, 3}, torch::kInt64);
  const auto quality =
      measure_quality(images, labels, one_hot_logits({0, 1, 2, 0, 0, 1, 2, 1}, 4), {0, 1});
  EXPECT_EQ(quality.class_accuracy, 6.0 / 8);
  EXPECT_EQ(quality.class_share, (std::vector<double>{3.0 / 8, 3.0 / 8, 2.0 / 8, 0}));
  EXPECT_EQ(quality.class_balance, 0);
  EXPECT_EQ(quality.spread, 0);
}

TEST(Quality, RefusesWhatDoesNotFit) {
  const auto images = torch::zeros({4, 1, 2, 2});
  const auto labels = torch::zeros({4}, torch::kInt64);
  EXPECT_THROW(pixel_stats(images, torch::zeros({3}, torch::kInt64), 2), Error);
  EXPECT_THROW(pixel_stats(images, labels + 2, 2), Error);
  EXPECT_THROW(pixel_stats(images, labels - 1, 2), Error);
  EXPECT_THROW(measure_quality(images, labels, torch::zeros({5, 2}), {0, 1}), Error);
}

}  // namespace
}  // namespace onestep
