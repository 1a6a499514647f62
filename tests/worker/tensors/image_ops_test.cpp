#include "worker/tensors/image_ops.h"

#include <gtest/gtest.h>

#include <bit>

#include "common/error.h"
#include "worker/tensors/bfloat16.h"
#include "worker/tensors/grid_op_cases.h"
#include "worker/tensors/image_grid.h"
#include "worker/tensors/launch.h"

namespace onestep {
namespace {

torch::Tensor column(const torch::Tensor& values) { return values.view({-1, 1, 1, 1}); }

// Every bit pattern against PyTorch's own rounding.
TEST(BFloat16, RoundsAsPyTorchDoes) {
  const auto bits = torch::arange(std::int64_t{1} << 16) * 65536 + torch::tensor({0, 1, 0x7fff, 0x8000, 0x8001, 0xffff}).view({-1, 1});
  const auto values = bits.to(torch::kInt32).view(torch::kFloat32).flatten();
  const auto expected = values.to(torch::kBFloat16);
  const auto* from = values.const_data_ptr<float>();
  const auto* to = static_cast<const std::uint16_t*>(expected.const_data_ptr());
  for (std::int64_t i = 0; i < values.numel(); ++i) {
    ASSERT_EQ(from_float<BFloat16>(from[i]).bits, from[i] == from[i] ? to[i] : 0x7fc0) << std::bit_cast<std::uint32_t>(from[i]);
  }
}

TEST(ImageOps, PreconditioningBothWays) {
  torch::manual_seed(1);
  const auto x = torch::randn({3, 2, 5, 4}).requires_grad_(true), c_in = torch::rand({3}), c_skip = torch::rand({3}), c_out = torch::rand({3});
  const auto F = torch::randn({3, 2, 5, 4}).to(torch::kBFloat16).requires_grad_(true);
  const auto upstream = torch::randn({3, 2, 5, 4});
  EXPECT_TRUE(torch::equal(scale_samples(x, c_in, torch::kBFloat16), (x * column(c_in)).to(torch::kBFloat16)));
  const auto d = combine_samples(scale_samples(x, c_in, torch::kFloat32), F, c_skip, c_out);
  const auto x2 = x.detach().clone().requires_grad_(true), F2 = F.detach().clone().requires_grad_(true);
  const auto expected = x2 * column(c_in) * column(c_skip) + F2.to(torch::kFloat32) * column(c_out);
  EXPECT_LT(relative_error(d, expected.detach()), 1e-6);
  d.backward(upstream);
  expected.backward(upstream);
  EXPECT_LT(relative_error(x.grad(), x2.grad()), 1e-6);
  EXPECT_TRUE(torch::equal(F.grad(), F2.grad()));
}

// The device's way to draw gives the bits of the CPU's.
TEST(ImageOps, DrawsByAStepInMemory) {
  const DrawKey key{42, RandomStream::kScoreNoise, 7};
  const DrawKey there{42, RandomStream::kScoreNoise, 0, torch::tensor({7}, torch::kInt64)};
  EXPECT_TRUE(torch::equal(keyed_normal(key, 5, 3, {3, 5, 5}), keyed_normal(there, 5, 3, {3, 5, 5})));
  EXPECT_TRUE(torch::equal(keyed_normal(key, 5, 3, {10}), keyed_normal(there, 5, 3, {10})));
  EXPECT_TRUE(torch::equal(keyed_uniform(key, 5, 3), keyed_uniform(there, 5, 3)));
  EXPECT_TRUE(torch::equal(keyed_integer(key, 5, 30, 10), keyed_integer(there, 5, 30, 10)));
  const auto step = there.device_step;
  step.fill_(8);
  EXPECT_FALSE(torch::equal(keyed_uniform(key, 5, 3), keyed_uniform(there, 5, 3)));
}

TEST(ImageOps, DiffusionDrawsItsNoiseInside) {
  torch::manual_seed(2);
  const DrawKey key{42, RandomStream::kScoreNoise, 7}, there{42, RandomStream::kScoreNoise, 0, torch::tensor({7}, torch::kInt64)};
  const auto x = torch::randn({3, 3, 5, 5}), alpha = torch::rand({3}), sigma = torch::rand({3}) * 5;
  const auto expected = column(alpha) * x + column(sigma) * keyed_normal(key, 11, 3, {3, 5, 5});
  EXPECT_TRUE(torch::equal(diffuse_keyed(there, 11, x, alpha, sigma), expected));
}

TEST(ImageOps, DistributionMatchingGradient) {
  torch::manual_seed(3);
  const auto x = torch::randn({4, 3, 9, 7}), real = torch::randn({4, 3, 9, 7}), fake = torch::randn({4, 3, 9, 7});
  x[2].copy_(real[2]);  // a sample without a denominator
  const auto denominator = (x - real).to(torch::kFloat64).abs().mean({1, 2, 3}, true);
  const auto expected = torch::where(denominator == 0, 0.0, (fake - real).to(torch::kFloat64) / denominator);
  const DmGradientResult result = dm_gradient(x, real, fake);
  EXPECT_LT(relative_error(result.gradient, expected), 1e-6);
  EXPECT_TRUE(torch::equal(result.gradient[2], torch::zeros({3, 9, 7})));
  EXPECT_LT(relative_error(result.figures, torch::stack({expected.square().sum() / 2, expected.abs().sum(), torch::tensor(1.0, torch::kFloat64)})), 1e-6);
}

TEST(Launch, ADeviceThatTheProgramWasNotBuiltForIsRefused) {
  try {
    launch(DmGradient{.batch = 1}, torch::empty({1}, torch::kMeta));
    FAIL() << "expected an error";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("found meta"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace onestep
