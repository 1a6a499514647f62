#include "worker/diffusion/noise_schedule.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "common/error.h"
#include "support/parity.h"

namespace onestep {
namespace {

TEST(EdmSchedule, TimestepIsUniformInTheRhoCoordinate) {
  const EdmSchedule schedule;
  const auto t = schedule.timestep(torch::tensor({0.0f, 0.5f, 1.0f}), 0.002, 80);
  EXPECT_FLOAT_EQ(t[0].item<float>(), 80);
  // ((80^(1/7) + .002^(1/7)) / 2)^7 by hand: (1.870103 + .411577) / 2 = 1.140840, its 7th power 2.5152...
  EXPECT_NEAR(t[1].item<float>(), 2.515, 0.01);
  EXPECT_NEAR(t[2].item<float>(), 0.002, 1e-6);
}

TEST(EdmSchedule, WeightOfTheDenoisingLoss) {
  const EdmSchedule schedule(0.5);
  EXPECT_FLOAT_EQ(schedule.denoising_weight(torch::tensor({2.0f})).item<float>(), 0.25f + 4.0f);
}

// Values published for Stable Diffusion 1.5: beta = linspace(sqrt .00085, sqrt .012, 1000)^2.
TEST(DiscreteSchedule, StableDiffusionTable) {
  const auto schedule = DiscreteSchedule::scaled_linear(1000, 0.00085, 0.012);
  EXPECT_NEAR(schedule.alpha_bar()[0].item<double>(), 0.99915, 1e-6);
  EXPECT_NEAR(schedule.alpha_bar()[399].item<double>(), 0.42608636, 1e-6);
  EXPECT_NEAR(schedule.alpha_bar()[499].item<double>(), 0.27766965, 1e-6);
  EXPECT_NEAR(schedule.alpha_bar()[999].item<double>(), 0.0046601, 1e-6);
  const auto t = torch::tensor({0.0f, 999.0f});
  const auto one = schedule.alpha(t).square() + schedule.sigma(t).square();
  EXPECT_TRUE(torch::allclose(one, torch::ones({2})));
}

nlohmann::json diffusers_golden() {
  std::ifstream file(ONESTEP_SOURCE_DIR "/tests/golden/discrete_samplers.json");
  return nlohmann::json::parse(file);
}

std::string diffusers_packages() { return versions_of(diffusers_golden().at("versions"), {"diffusers", "torch"}); }

// The whole table of alpha-bar, bit for bit: both are products in fp32.
TEST(DiscreteSchedule, TableIsThatOfDiffusers) {
  const auto table = diffusers_golden().at("alpha_bar").get<std::vector<double>>();
  const auto schedule = DiscreteSchedule::scaled_linear(1000, 0.00085, 0.012);
  EXPECT_TRUE(torch::equal(schedule.alpha_bar(), torch::tensor(table, torch::kFloat64)));
  ParityRow row({"noise table of Stable Diffusion", diffusers_packages(), "alpha-bar of 1,000 steps", kAbsolute, "none: a table"});
  row.forward((schedule.alpha_bar() - torch::tensor(table, torch::kFloat64)).abs().max().item<double>(), 0);
}

TEST(Prediction, ConversionsAreThoseOfDiffusers) {
  const auto schedule = DiscreteSchedule::scaled_linear(1000, 0.00085, 0.012);
  const auto document = diffusers_golden();
  ParityRow row({"x0 from epsilon, v and x0", diffusers_packages(), "9 cases of 2 values, steps 1, 400 and 999, fp32", "max abs(a - b) / (1 + abs(b))",
                 "none: linear in the prediction"});
  for (const auto& json : document.at("conversions")) {
    const auto kind = json.at("prediction") == "epsilon"        ? Prediction::kEpsilon
                      : json.at("prediction") == "v_prediction" ? Prediction::kV
                                                                : Prediction::kX0;
    const auto values = [&](const char* key) { return torch::tensor(json.at(key).get<std::vector<float>>()).view({-1, 1, 1, 1}); };
    const auto t = torch::full({2}, json.at("t").get<float>());
    const auto x0 = x0_from_prediction(kind, values("raw"), values("x_t"), schedule.alpha(t), schedule.sigma(t));
    // alpha and sigma are roots rounded to fp32 on both sides: 6e-8, 15 times that where x0 is a difference at the noisy end.
    const auto error = (x0 - values("x0")).abs() / (1 + values("x0").abs());
    row.forward(error.max().item<double>(), 2e-6, json.dump());
  }
}

TEST(DiscreteSchedule, TimestepStaysWithinTheNoiseLevels) {
  const auto schedule = DiscreteSchedule::scaled_linear(1000, 0.00085, 0.012);
  const auto t = schedule.timestep(torch::rand({1000}), 0.5, 5.0);
  const auto level = schedule.sigma(t) / schedule.alpha(t);
  EXPECT_GE(level.min().item<float>(), 0.5f);
  EXPECT_LE(level.max().item<float>(), 5.0f);
  EXPECT_THROW((void)schedule.timestep(torch::rand({1}), 100, 200), Error);
}

TEST(Prediction, EveryKindGivesBackTheImage) {
  torch::manual_seed(3);
  const auto x0 = torch::randn({4, 1, 3, 3}), eps = torch::randn({4, 1, 3, 3});
  const auto alpha = torch::tensor({0.9f, 0.5f, 0.2f, 0.068f});
  const auto sigma = (1 - alpha.square()).sqrt();
  const auto a = per_sample(alpha), s = per_sample(sigma);
  const auto x_t = a * x0 + s * eps;
  EXPECT_TRUE(torch::equal(x0_from_prediction(Prediction::kX0, x0, x_t, alpha, sigma), x0));
  EXPECT_TRUE(torch::allclose(x0_from_prediction(Prediction::kEpsilon, eps, x_t, alpha, sigma), x0, 1e-4, 1e-4));
  EXPECT_TRUE(torch::allclose(x0_from_prediction(Prediction::kV, a * eps - s * x0, x_t, alpha, sigma), x0, 1e-4, 1e-5));
}

}  // namespace
}  // namespace onestep
