#include "worker/diffusion/guidance.h"

#include <gtest/gtest.h>

#include "common/error.h"

namespace onestep {
namespace {

// D depends on x, t and what it is conditioned on; remembers the batch it was given.
class Conditioned final : public Denoiser {
 public:
  torch::Tensor denoise(const torch::Tensor& x_t, const torch::Tensor& t, const Condition& condition) override {
    last = condition;
    batch = x_t.size(0);
    auto x0 = x_t.tanh() + 0.1 * per_sample(t);
    if (condition.labels.defined()) x0 = x0 + per_sample((condition.labels + 1).to(torch::kFloat32)) * x_t;
    if (condition.text.defined()) x0 = x0 + per_sample(condition.text.mean({1, 2})) * x_t;
    return x0;
  }
  [[nodiscard]] const NoiseSchedule& schedule() const override { return schedule_; }
  [[nodiscard]] Prediction prediction() const override { return Prediction::kX0; }
  [[nodiscard]] ImageShape image_shape() const override { return {1, 2, 2}; }
  [[nodiscard]] std::int64_t num_classes() const override { return 10; }
  torch::nn::Module& module() override { return module_; }

  Condition last;
  std::int64_t batch = 0;

 private:
  EdmSchedule schedule_;
  torch::nn::Module module_;
};

class Guidance : public testing::Test {
 protected:
  Guidance() { torch::manual_seed(1); }
  Conditioned net_;
  torch::Tensor x_ = torch::randn({3, 1, 2, 2});
  torch::Tensor t_ = torch::tensor({0.5f, 1.0f, 2.0f});
};

TEST_F(Guidance, MovesAwayFromTheNullLabel) {
  const auto labels = torch::tensor({4, 0, 9});
  GuidedDenoiser guided(net_, 3.5);
  const auto found = guided.denoise(x_, t_, {labels, {}});
  EXPECT_TRUE(torch::equal(net_.last.labels, torch::tensor({-1, -1, -1, 4, 0, 9})));  // [null, condition]
  EXPECT_EQ(net_.batch, 6);
  const auto null = net_.denoise(x_, t_, {torch::tensor({-1, -1, -1}), {}});
  const auto plain = net_.denoise(x_, t_, {labels, {}});
  EXPECT_TRUE(torch::equal(found, null + 3.5 * (plain - null)));
}

// Guidance is stated for the noise: epsilon = epsilon_null + s (epsilon_cond - epsilon_null).
TEST_F(Guidance, OfTheNoiseIsGuidanceOfTheImage) {
  const auto labels = torch::tensor({1, 2, 3});
  const auto s = per_sample(t_);
  const auto epsilon = [&](const torch::Tensor& x0) { return (x_ - x0) / s; };
  const auto null = epsilon(net_.denoise(x_, t_, {torch::full({3}, -1), {}}));
  const auto cond = epsilon(net_.denoise(x_, t_, {labels, {}}));
  const auto expected = x_ - s * (null + 2.0 * (cond - null));
  EXPECT_TRUE(torch::allclose(GuidedDenoiser(net_, 2.0).denoise(x_, t_, {labels, {}}), expected, 1e-5, 1e-5));
}

TEST_F(Guidance, TextHasItsOwnNull) {
  const auto text = torch::randn({3, 5, 4}), null_text = torch::randn({1, 5, 4});
  GuidedDenoiser guided(net_, 8.0, null_text);
  const auto found = guided.denoise(x_, t_, {{}, text});
  EXPECT_TRUE(torch::equal(net_.last.text.narrow(0, 0, 3), null_text.expand({3, 5, 4})));
  const auto null = net_.denoise(x_, t_, {{}, null_text.expand({3, 5, 4})});
  const auto plain = net_.denoise(x_, t_, {{}, text});
  EXPECT_TRUE(torch::allclose(found, null + 8.0 * (plain - null)));
  EXPECT_THROW(GuidedDenoiser(net_, 8.0).denoise(x_, t_, {{}, text}), Error);
  EXPECT_THROW(guided.denoise(x_, t_, {}), Error);
}

TEST_F(Guidance, IsOffUnlessTheScaleIsAboveOne) {
  const auto labels = torch::tensor({4, 0, 9});
  for (const double scale : {0.0, 1.0}) {
    EXPECT_TRUE(torch::equal(GuidedDenoiser(net_, scale).denoise(x_, t_, {labels, {}}), net_.denoise(x_, t_, {labels, {}})));
    EXPECT_EQ(net_.batch, 3);
  }
}

}  // namespace
}  // namespace onestep
