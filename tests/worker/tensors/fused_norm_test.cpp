#include "worker/tensors/fused_norm.h"

#include <gtest/gtest.h>

namespace onestep {
namespace {

struct Case {
  std::int64_t batch, channels, side, groups;
  bool scale_shift, silu;
};

class FusedNormTest : public testing::TestWithParam<Case> {};

double relative_error(const torch::Tensor& a, const torch::Tensor& b) {
  return ((a - b).norm() / b.norm().clamp_min(1e-12)).item<double>();
}

// Forward and every gradient against ATen's own operations in fp64.
TEST_P(FusedNormTest, AgreesWithItsSlowTwin) {
  const Case c = GetParam();
  torch::manual_seed(1);
  const FusedNormOptions options{c.groups, 1e-5, c.silu};
  std::vector<torch::Tensor> inputs = {torch::randn({c.batch, c.channels, c.side, c.side}) * 2 + 0.5,
                                       torch::randn({c.channels}), torch::randn({c.channels})};
  if (c.scale_shift) inputs.push_back(torch::randn({c.batch, 2 * c.channels}));
  const auto upstream = torch::randn({c.batch, c.channels, c.side, c.side});

  std::vector<torch::Tensor> fast, slow;
  for (const auto& input : inputs) {
    fast.push_back(input.clone().requires_grad_(true));
    slow.push_back(input.to(torch::kFloat64).requires_grad_(true));
  }
  const auto scale = [&](std::vector<torch::Tensor>& v) { return c.scale_shift ? v[3] : torch::Tensor(); };
  const auto y = fused_norm(fast[0], fast[1], fast[2], scale(fast), options);
  const auto expected = reference_norm(slow[0], slow[1], slow[2], scale(slow), options);
  y.backward(upstream);
  expected.backward(upstream.to(torch::kFloat64));
  EXPECT_LT(relative_error(y, expected.to(torch::kFloat32)), 2e-6);
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    EXPECT_LT(relative_error(fast[i].grad(), slow[i].grad().to(torch::kFloat32)), 1e-5) << "input " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, FusedNormTest,
                         testing::Values(Case{2, 32, 7, 8, true, true}, Case{3, 64, 7, 16, false, true},
                                         Case{2, 32, 7, 8, false, false}, Case{1, 4, 1, 1, true, true},
                                         Case{2, 8, 5, 2, true, false}, Case{1, 192, 16, 32, true, true}));

TEST(FusedNorm, SameBitsWhateverTheBatch) {
  torch::manual_seed(2);
  const auto x = torch::randn({4, 8, 7, 7});
  const auto w = torch::randn({8}), b = torch::randn({8}), s = torch::randn({4, 16});
  const auto whole = fused_norm(x, w, b, s, {2, 1e-5, true});
  const auto part = fused_norm(x.narrow(0, 1, 2), w, b, s.narrow(0, 1, 2), {2, 1e-5, true});
  EXPECT_TRUE(torch::equal(whole.narrow(0, 1, 2), part));
}

TEST(FusedNorm, FiniteForExtremeInputs) {
  const auto x = torch::full({1, 4, 3, 3}, 1e6f);
  const auto y = fused_norm(x, torch::full({4}, 1e3f), torch::full({4}, -500.0f), {}, {1, 1e-5, true});
  EXPECT_TRUE(torch::isfinite(y).all().item<bool>());
}

}  // namespace
}  // namespace onestep
