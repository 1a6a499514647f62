// The same updates as torch::optim::AdamW, which is an independent implementation.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/optim/adamw.h>
#include <torch/utils.h>

#include "worker/optim/flat_adamw.h"

namespace onestep {
namespace {

std::span<float> span_of(at::Tensor& tensor) {
  return {tensor.data_ptr<float>(), static_cast<std::size_t>(tensor.numel())};
}

class AdamwParity : public testing::TestWithParam<double> {};

TEST_P(AdamwParity, TwentyStepsAgree) {
  const double beta1 = GetParam();
  torch::manual_seed(3);
  torch::Tensor ours = torch::randn({5003});
  torch::Tensor theirs = ours.clone().requires_grad_(true);
  torch::Tensor exp_avg = torch::zeros({5003}), exp_avg_sq = torch::zeros({5003});
  const AdamwOptions options = {.learning_rate = 1e-2, .beta1 = beta1, .beta2 = 0.99, .epsilon = 1e-8, .weight_decay = 1e-2};
  torch::optim::AdamW optimizer({theirs}, torch::optim::AdamWOptions(options.learning_rate)
                                              .betas({beta1, options.beta2})
                                              .eps(options.epsilon)
                                              .weight_decay(options.weight_decay));
  for (std::int64_t step = 1; step <= 20; ++step) {
    torch::Tensor gradient = torch::randn({5003}) * 0.1;
    theirs.mutable_grad() = gradient.clone();
    optimizer.step();
    flat_adamw(span_of(ours), span_of(gradient), span_of(exp_avg), span_of(exp_avg_sq), options, step);
  }
  // fp32 has 6e-8; twenty updates of at most .01 on parameters of about 1 leave a few roundings.
  const double error = (ours - theirs.detach()).norm().item<double>() / ours.norm().item<double>();
  EXPECT_LE(error, 1e-6);
}

INSTANTIATE_TEST_SUITE_P(Beta1, AdamwParity, testing::Values(0.9, 0.0));

}  // namespace
}  // namespace onestep
