#include "worker/models/digit_detector.h"

#include <gtest/gtest.h>

#include <cmath>

#include "common/error.h"

namespace onestep {
namespace {

std::int64_t num_parameters(const torch::nn::Module& module) {
  std::int64_t total = 0;
  for (const auto& parameter : module.parameters()) total += parameter.numel();
  return total;
}

TEST(DigitDetector, HasTheRecipesSize) {
  EXPECT_EQ(num_parameters(*DigitDetector(1, 14, 10)), 56394);
  DigitDetector large(1, 28, 10);
  EXPECT_EQ(large->named_parameters()["fc1.weight"].sizes(), (std::vector<std::int64_t>{64, 3136}));
  EXPECT_EQ(large->logits(large->features(torch::zeros({2, 1, 28, 28}))).sizes(),
            (std::vector<std::int64_t>{2, 10}));
}

// The network again in plain loops, on weights in closed form.
TEST(DigitDetector, AgreesWithATwinInPlainLoops) {
  constexpr std::int64_t kSide = 6, kClasses = 3;
  DigitDetector detector(1, kSide, kClasses);
  torch::NoGradGuard no_grad;
  std::int64_t number = 0;
  for (auto& item : detector->named_parameters()) {
    auto values = torch::arange(item.value().numel(), torch::kFloat64);
    item.value().copy_(
        (0.2 * torch::sin(1.7 * values + static_cast<double>(++number))).view_as(item.value()));
  }
  const auto weight = [&](const char* name) {
    return detector->named_parameters()[name].to(torch::kFloat64).contiguous();
  };
  const auto image = torch::sin(torch::arange(kSide * kSide, torch::kFloat64));

  using Plane = std::vector<double>;
  const auto convolve_and_pool = [&](const std::vector<Plane>& in, std::int64_t side,
                                     const char* layer, std::int64_t channels) {
    const auto w = weight((std::string(layer) + ".weight").c_str());
    const auto b = weight((std::string(layer) + ".bias").c_str());
    const double* wp = w.data_ptr<double>();
    std::vector<Plane> out;
    const std::int64_t half = side / 2;
    for (std::int64_t o = 0; o < channels; ++o) {
      Plane pooled(static_cast<std::size_t>(half * half), 0);  // ReLU: nothing below zero
      for (std::int64_t y = 0; y < 2 * half; ++y) {
        for (std::int64_t x = 0; x < 2 * half; ++x) {
          double sum = b[o].item<double>();
          for (std::size_t i = 0; i < in.size(); ++i) {
            for (std::int64_t k = 0; k < 9; ++k) {
              const std::int64_t yy = y + k / 3 - 1, xx = x + k % 3 - 1;
              if (yy < 0 || yy >= side || xx < 0 || xx >= side) continue;
              sum += wp[(o * std::ssize(in) + static_cast<std::int64_t>(i)) * 9 + k] *
                     in[i][static_cast<std::size_t>(yy * side + xx)];
            }
          }
          auto& best = pooled[static_cast<std::size_t>(y / 2 * half + x / 2)];
          best = std::max(best, sum);
        }
      }
      out.push_back(pooled);
    }
    return out;
  };
  std::vector<Plane> planes{
      Plane(image.data_ptr<double>(), image.data_ptr<double>() + kSide * kSide)};
  planes = convolve_and_pool(planes, kSide, "conv1", 32);
  planes = convolve_and_pool(planes, kSide / 2, "conv2", 64);
  Plane flat;
  for (const Plane& plane : planes) flat.insert(flat.end(), plane.begin(), plane.end());
  const auto input = torch::tensor(flat, torch::kFloat64);
  const auto expected_features =
      torch::relu(torch::mv(weight("fc1.weight"), input) + weight("fc1.bias"));
  const auto expected_logits =
      torch::mv(weight("fc2.weight"), expected_features) + weight("fc2.bias");

  const auto features = detector->features(image.to(torch::kFloat32).view({1, 1, kSide, kSide}));
  // fp32 against fp64 over sums of 9 to 288 terms of size about 0.2.
  EXPECT_TRUE(torch::allclose(features[0].to(torch::kFloat64), expected_features, 1e-5, 1e-5));
  EXPECT_TRUE(torch::allclose(detector->logits(features)[0].to(torch::kFloat64), expected_logits,
                              1e-5, 1e-5));
  EXPECT_GT(expected_features.max().item<double>(), 0);
}

TEST(DigitDetector, RefusesOtherImages) {
  DigitDetector detector(1, 14, 10);
  EXPECT_THROW(detector->features(torch::zeros({1, 1, 28, 28})), Error);
  EXPECT_THROW(detector->features(torch::zeros({1, 3, 14, 14})), Error);
  EXPECT_THROW(DigitDetector(1, 3, 10), Error);
}

}  // namespace
}  // namespace onestep
