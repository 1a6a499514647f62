#include "worker/tensors/recompute.h"

#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

namespace onestep {
namespace {

class Recomputed : public testing::Test {
 protected:
  Recomputed() {
    torch::manual_seed(1);
    x_ = torch::randn({4, 5}).requires_grad_(true);
    weight_ = torch::randn({5, 5}).requires_grad_(true);
  }
  TensorFunction function() {
    return [this](const std::vector<torch::Tensor>& in) {
      ++calls_;
      return torch::silu(in[0].matmul(weight_)) + in[1];
    };
  }
  torch::Tensor x_, weight_;
  int calls_ = 0;
};

TEST_F(Recomputed, HasTheValuesAndGradientsOfThePlainCall) {
  const auto plain = function()({x_, x_});
  plain.square().sum().backward();
  const auto x_gradient = x_.grad().clone(), weight_gradient = weight_.grad().clone();
  x_.mutable_grad() = torch::Tensor();
  weight_.mutable_grad() = torch::Tensor();
  calls_ = 0;
  const auto y = recomputed(function(), {x_, x_}, {weight_});
  EXPECT_EQ(calls_, 1);
  EXPECT_TRUE(torch::equal(y, plain));
  y.square().sum().backward();
  EXPECT_EQ(calls_, 2);  // once more, in the backward pass
  EXPECT_TRUE(torch::equal(weight_.grad(), weight_gradient));
  EXPECT_TRUE(torch::allclose(x_.grad(), x_gradient));
}

TEST_F(Recomputed, GradientsComeByRequestToo) {
  const auto y = recomputed(function(), {x_, x_}, {weight_}).sum();
  const auto gradients = torch::autograd::grad({y}, {weight_});
  EXPECT_TRUE(torch::equal(gradients[0], torch::autograd::grad({function()({x_, x_}).sum()}, {weight_})[0]));
  EXPECT_FALSE(weight_.grad().defined());  // nothing was added on the side
}

TEST_F(Recomputed, WhatIsNotTrainedGetsNoGradient) {
  weight_.set_requires_grad(false);
  const auto y = recomputed(function(), {x_, x_.detach()}, {weight_});
  y.sum().backward();
  EXPECT_FALSE(weight_.grad().defined());
  EXPECT_TRUE(x_.grad().defined());
  x_.set_requires_grad(false);
  EXPECT_FALSE(recomputed(function(), {x_, x_}, {weight_}).requires_grad());
}

}  // namespace
}  // namespace onestep
