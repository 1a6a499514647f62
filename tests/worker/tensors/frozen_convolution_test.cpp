#include "worker/tensors/frozen_convolution.h"

#include <gtest/gtest.h>

namespace onestep {
namespace {

struct Shape {
  std::int64_t batch, in, out, kernel, height, width;
};

class FrozenConvolutionTest : public testing::TestWithParam<Shape> {};

// Its slow twin lays the weights out at every call.
TEST_P(FrozenConvolutionTest, AgreesWithConv2dAndRelu) {
  const Shape s = GetParam();
  torch::manual_seed(1);
  const auto weight = torch::randn({s.out, s.in, s.kernel, s.kernel}), bias = torch::randn({s.out});
  const auto x = torch::randn({s.batch, s.in, s.height, s.width}).contiguous(torch::MemoryFormat::ChannelsLast).requires_grad_(true);
  const auto twin_x = x.detach().clone().requires_grad_(true);
  const auto upstream = torch::randn({s.batch, s.out, s.height, s.width});
  const FrozenConvolution fast(weight, bias);
  const auto y = fast(x);
  const auto twin =
      torch::relu(torch::conv2d(twin_x, weight.contiguous(torch::MemoryFormat::ChannelsLast), bias, 1, s.kernel / 2));
  y.backward(upstream);
  twin.backward(upstream);
  const auto error = [](const torch::Tensor& a, const torch::Tensor& b) { return ((a - b).norm() / b.norm()).item<double>(); };
  EXPECT_LT(error(y, twin), 1e-6);
  EXPECT_TRUE(y.is_contiguous(torch::MemoryFormat::ChannelsLast));
  EXPECT_LT(error(x.grad(), twin_x.grad()), 1e-6);
  const torch::NoGradGuard no_grad;
  EXPECT_TRUE(torch::equal(fast(x.detach().contiguous()), y));
}

INSTANTIATE_TEST_SUITE_P(Shapes, FrozenConvolutionTest,
                         testing::Values(Shape{2, 3, 64, 3, 16, 16}, Shape{1, 64, 128, 3, 8, 8}, Shape{3, 5, 7, 3, 5, 9},
                                         Shape{1, 1, 1, 1, 1, 1}, Shape{1, 16, 16, 5, 7, 6}));

TEST(FrozenConvolution, MovedItIsConv2dAndRelu) {
  torch::manual_seed(2);
  const auto weight = torch::randn({4, 3, 3, 3}), bias = torch::randn({4}), x = torch::randn({2, 3, 6, 6});
  FrozenConvolution convolution(weight, bias);
  convolution.move_to(torch::kCPU, torch::kBFloat16);
  const auto low = [](const torch::Tensor& tensor) { return tensor.to(torch::kBFloat16); };
  EXPECT_EQ(convolution.dtype(), torch::kBFloat16);
  EXPECT_TRUE(torch::equal(convolution(low(x)), torch::relu(torch::conv2d(low(x), low(weight), low(bias), 1, 1))));
}

TEST(FrozenConvolution, KeepsNoReferenceToTheWeights) {
  auto weight = torch::ones({2, 2, 3, 3});
  const FrozenConvolution convolution(weight, torch::zeros({2}));
  const auto x = torch::ones({1, 2, 4, 4});
  const auto before = convolution(x);
  weight.zero_();
  EXPECT_TRUE(torch::equal(convolution(x), before));
}

}  // namespace
}  // namespace onestep
