#include "worker/tensors/unet_ops.h"

#include <gtest/gtest.h>

#include "common/error.h"
#include "worker/tensors/grid_op_cases.h"

namespace onestep {
namespace {

class GridOp : public testing::TestWithParam<std::size_t> {};

// Outputs and every gradient against ATen's own operations in fp64, fp32 within its own rounding.
TEST_P(GridOp, AgreesWithItsSlowTwin) {
  const GridOpCase& item = grid_op_cases()[GetParam()];
  const Tensors fast = run_grid_op(item, item.fast, torch::kFloat32, torch::kCPU), slow = run_grid_op(item, item.slow, torch::kFloat64, torch::kCPU);
  ASSERT_EQ(fast.size(), slow.size());
  for (std::size_t i = 0; i < fast.size(); ++i) EXPECT_LT(relative_error(fast[i], slow[i]), 1e-5) << item.name << ", result " << i;
}

// bfloat16 in memory, fp32 inside: what is left is one rounding (2^-9) of each value read and written, a few of them one behind the other.
TEST_P(GridOp, AgreesInBfloat16) {
  const GridOpCase& item = grid_op_cases()[GetParam()];
  GridOpCase rounded = item;
  for (torch::Tensor& input : rounded.inputs) input = input.to(torch::kBFloat16).to(torch::kFloat32);
  const Tensors fast = run_grid_op(rounded, item.fast, torch::kBFloat16, torch::kCPU), slow = run_grid_op(rounded, item.slow, torch::kFloat64, torch::kCPU);
  for (std::size_t i = 0; i < fast.size(); ++i) {
    EXPECT_EQ(fast[i].scalar_type(), torch::kBFloat16);
    EXPECT_LT(relative_error(fast[i], slow[i]), 8e-3) << item.name << ", result " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, GridOp, testing::Range<std::size_t>(0, grid_op_cases().size()));

TEST(NormAct, AMeanFarFromZeroCostsNoAccuracy) {
  torch::manual_seed(3);
  const auto x = torch::randn({2, 32, 8, 8}) + 1000;
  NormAct arguments{x, {}, {}, torch::ones({32}), torch::zeros({32}), {}, 8, 1e-5, 1, false};
  const auto expected = torch::group_norm(x.to(torch::kFloat64), 8);
  // Of x itself 2^-24 * 1000 / 1 is lost by fp32, nothing more.
  EXPECT_LT(relative_error(norm_act(arguments).y, expected), 1e-4);
}

TEST(NormAct, ASampleDoesNotDependOnItsNeighbours) {
  torch::manual_seed(4);
  const auto x = torch::randn({3, 64, 6, 6}), w = torch::randn({64}), b = torch::randn({64});
  const auto whole = norm_act({x, {}, {}, w, b, {}, 16}).y;
  EXPECT_TRUE(torch::equal(whole.narrow(0, 1, 1), norm_act({x.narrow(0, 1, 1), {}, {}, w, b, {}, 16}).y));
}

TEST(NormAct, TheSumIsOneRoundingOfItsParts) {
  torch::manual_seed(5);
  const auto x = torch::randn({1, 16, 3, 3}).to(torch::kBFloat16), r = torch::randn({1, 16, 3, 3}).to(torch::kBFloat16);
  const auto w = torch::ones({16}, torch::kBFloat16), b = torch::zeros({16}, torch::kBFloat16);
  const auto expected = ((x.to(torch::kFloat32) + r.to(torch::kFloat32)) * 0.5f).to(torch::kBFloat16);
  NormAct arguments{x, r, {}, w, b, {}, 4, 1e-5, 0.5, true};
  EXPECT_TRUE(torch::equal(norm_act(arguments).sum, expected));
}

TEST(NormAct, RefusesWhatDoesNotBelongTogether) {
  const auto x = torch::randn({2, 16, 3, 3}), w = torch::ones({16}), b = torch::zeros({16});
  EXPECT_THROW(norm_act({x, {}, {}, w.to(torch::kBFloat16), b, {}, 4}), Error);
  EXPECT_THROW(norm_act({x, {}, torch::zeros({3, 16}), w, b, {}, 4}), Error);
  EXPECT_THROW(norm_act({x, {}, {}, w, b, torch::zeros({2, 16}), 4}), Error);
  EXPECT_THROW(norm_act({x.to(torch::kFloat16), {}, {}, w.to(torch::kFloat16), b.to(torch::kFloat16), {}, 4}), Error);
}

TEST(Resample2, RefusesOddSidesDownwards) { EXPECT_THROW(resample2(torch::randn({1, 4, 5, 4}), {}), Error); }

}  // namespace
}  // namespace onestep
