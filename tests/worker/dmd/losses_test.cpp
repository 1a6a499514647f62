#include "worker/dmd/losses.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "worker/dmd/distance.h"
#include "worker/dmd/dmd_step.h"
#include "worker/dmd/frozen.h"

namespace onestep {
namespace {

// A denoiser that answers one fixed image for every input.
class Fixed final : public Denoiser {
 public:
  explicit Fixed(torch::Tensor answer) : answer_(std::move(answer)) {}
  torch::Tensor denoise(const torch::Tensor& x_t, const torch::Tensor&, const Condition&) override {
    last_input = x_t;
    return answer_.expand_as(x_t).clone();
  }
  [[nodiscard]] const NoiseSchedule& schedule() const override { return schedule_; }
  [[nodiscard]] Prediction prediction() const override { return Prediction::kX0; }
  [[nodiscard]] ImageShape image_shape() const override { return {1, 2, 2}; }
  [[nodiscard]] std::int64_t num_classes() const override { return 0; }
  torch::nn::Module& module() override { return module_; }
  torch::Tensor last_input;

 private:
  torch::Tensor answer_;
  EdmSchedule schedule_;
  torch::nn::Module module_;
};

torch::Tensor image(float value) { return torch::full({1, 1, 2, 2}, value); }

// DMD Alg. 2 by hand: x = 3, mu_real = 1, mu_fake = 5: gradient (5 - 1) / mean|3 - 1| = 2.
TEST(DistributionMatchingGradient, ByHand) {
  Fixed real(image(1)), fake(image(5));
  const auto x = torch::full({2, 1, 2, 2}, 3.0f);
  const auto t = torch::tensor({1.0f, 2.0f});
  const auto result = distribution_matching_gradient(real, fake, x, x, t, {});
  EXPECT_TRUE(torch::equal(result.gradient, torch::full({2, 1, 2, 2}, 2.0f)));
  EXPECT_EQ(result.zero_denominators, 0);
  EXPECT_FALSE(result.gradient.requires_grad());
}

// The weight is per sample: one sample's distance doesn't touch another's.
TEST(DistributionMatchingGradient, WeightIsPerSampleAndZeroDenominatorsAreCounted) {
  Fixed real(image(1)), fake(image(5));
  const auto x = torch::cat({image(1), image(2), image(9)});
  const auto result = distribution_matching_gradient(real, fake, x, x, torch::ones({3}), {});
  EXPECT_TRUE(torch::equal(result.gradient, torch::cat({image(0), image(4), image(0.5)})));
  EXPECT_EQ(result.zero_denominators, 1);
}

TEST(DistributionMatchingLoss, DerivativeIsTheGradientOverTheGlobalBatch) {
  auto x = torch::randn({2, 1, 2, 2}).requires_grad_(true);
  const auto gradient = torch::randn({2, 1, 2, 2});
  const auto loss = distribution_matching_loss(x, gradient, 8);
  loss.backward();
  EXPECT_TRUE(torch::allclose(x.grad(), gradient / (8.0 * 4), 1e-4, 1e-6));
  EXPECT_NEAR(loss.item<double>(), 0.5 * gradient.square().sum().item<double>() / (8 * 4), 1e-6);
}

TEST(DenoisingLoss, EdmWeightAndMean) {
  const EdmSchedule schedule(0.5);
  const auto loss = denoising_loss(schedule, image(3), image(1), torch::tensor({2.0f}), 1);
  EXPECT_FLOAT_EQ(loss.item<float>(), (0.25f + 4) * 4);
}

TEST(Losses, MicroBatchesAddUpToTheWhole) {
  const auto x = torch::randn({8, 1, 2, 2}), mu = torch::randn({8, 1, 2, 2});
  const auto t = torch::rand({8}) + 0.5;
  const EdmSchedule schedule;
  double sum = 0;
  for (int m = 0; m < 4; ++m) {
    sum += denoising_loss(schedule, mu.narrow(0, 2 * m, 2), x.narrow(0, 2 * m, 2), t.narrow(0, 2 * m, 2), 8)
               .item<double>();
  }
  EXPECT_NEAR(sum, denoising_loss(schedule, mu, x, t, 8).item<double>(), 1e-5 * std::abs(sum));
}

TEST(Generate, NetworkSeesScaledNoise) {
  Fixed generator(image(0));
  const auto z = torch::randn({3, 1, 2, 2});
  (void)generate(generator, z, {}, 80);
  EXPECT_TRUE(torch::equal(generator.last_input, 80 * z));
}

// softplus(0) = ln 2, softplus(ln 3) = ln 4, softplus(-ln 3) = ln 4/3.
TEST(GanLosses, ByHand) {
  const float ln3 = std::log(3.0f);
  const auto logit = torch::tensor({0.0f, ln3});
  EXPECT_NEAR(generator_gan_loss(logit, 2).item<double>(), (std::log(2.0) + std::log(4.0 / 3)) / 2, 1e-6);
  const auto logit_real = torch::tensor({-ln3});
  EXPECT_NEAR(discriminator_loss(logit, logit_real, 2, 1).item<double>(), (std::log(2.0) + std::log(4.0)) / 2 + std::log(4.0), 1e-6);
}

TEST(GeneratorsTurn, IsEveryNthIterationOfItsPhase) {
  DmdSettings settings;
  settings.first_step = 7;
  EXPECT_TRUE(is_generators_turn(settings, 8));
  settings.fake_updates_per_generator_update = 5;
  std::vector<std::uint32_t> turns;
  for (std::uint32_t step = 7; step < 20; ++step) {
    if (is_generators_turn(settings, step)) turns.push_back(step);
  }
  EXPECT_EQ(turns, (std::vector<std::uint32_t>{7, 12, 17}));
}

TEST(FrozenNetwork, LetsGradientsThroughAndKeepsNone) {
  torch::nn::Module module;
  auto trained = module.register_parameter("trained", torch::full({1}, 3.0f));
  module.register_parameter("still", torch::ones({1}), /*requires_grad=*/false);
  const auto x = torch::full({1}, 2.0f).requires_grad_(true);
  {
    const Frozen frozen(module);
    (trained * x).sum().backward();
  }
  EXPECT_EQ(x.grad().item<float>(), 3.0f);
  EXPECT_FALSE(trained.grad().defined());
  EXPECT_TRUE(trained.requires_grad());
  EXPECT_FALSE(module.named_parameters()["still"].requires_grad());
}

TEST(L2Distance, MeanOverOneSample) {
  const auto d = L2Distance()(torch::cat({image(1), image(4)}), torch::cat({image(1), image(1)}));
  EXPECT_TRUE(torch::equal(d, torch::tensor({0.0f, 9.0f})));
}

}  // namespace
}  // namespace onestep
