#include "worker/dmd/losses.h"

#include <gtest/gtest.h>

#include "worker/dmd/distance.h"

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

TEST(L2Distance, MeanOverOneSample) {
  const auto d = L2Distance()(torch::cat({image(1), image(4)}), torch::cat({image(1), image(1)}));
  EXPECT_TRUE(torch::equal(d, torch::tensor({0.0f, 9.0f})));
}

}  // namespace
}  // namespace onestep
