// The claim of the DMD paper's Fig. 3 on a two-mode target in the plane, through the real dmd_step: the real score alone
// collapses to the nearer mode, real and fake score cover one mode, with regression pairs both are covered.
// Settings were designed on seeds 0-9 in tools/golden/toy_two_modes.py; these tests use others.
#include <gtest/gtest.h>
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/modules/activation.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/utils/clip_grad.h>
#include <torch/optim/adam.h>

#include <cmath>

#include "worker/dmd/dmd_step.h"
#include "worker/dmd/losses.h"
#include "worker/tensors/keyed_random.h"

namespace onestep {
namespace {

constexpr double kModeDeviation = 0.3, kSigmaData = 2.0, kSigmaGenerator = 20.0;
constexpr std::int64_t kBatch = 256, kPairs = 500, kPairBatch = 128;

torch::Tensor modes() { return torch::tensor({{-1.0f, 0.0f}, {2.5f, 1.0f}}); }

class PlaneDenoiser : public Denoiser {
 public:
  [[nodiscard]] const NoiseSchedule& schedule() const override { return schedule_; }
  [[nodiscard]] Prediction prediction() const override { return Prediction::kX0; }
  [[nodiscard]] ImageShape image_shape() const override { return {2, 1, 1}; }
  [[nodiscard]] std::int64_t num_classes() const override { return 0; }
  torch::nn::Module& module() override { return *net_; }

 protected:
  EdmSchedule schedule_{kSigmaData};
  torch::nn::Sequential net_;
};

// mu_real in closed form: the posterior mean of a mixture of two Gaussians.
class ExactScore final : public PlaneDenoiser {
 public:
  torch::Tensor denoise(const torch::Tensor& x_t, const torch::Tensor& t, const Condition&) override {
    const auto x = x_t.flatten(1).unsqueeze(1);                                           // (B, 1, 2)
    const auto variance = (t.square() + kModeDeviation * kModeDeviation).view({-1, 1});  // (B, 1)
    const auto offset = x - modes();                                                      // (B, 2, 2)
    const auto share = torch::softmax(-offset.square().sum(2) / (2 * variance), 1).unsqueeze(2);
    const auto shrink = (kModeDeviation * kModeDeviation / variance).unsqueeze(2);
    return (share * (modes() + shrink * offset)).sum(1).view_as(x_t);
  }
};

// A score of zero: mu = x_t. The term with a gradient keeps backward() going through a parameter that stays 0.
class ZeroScore final : public PlaneDenoiser {
 public:
  ZeroScore() { net_->push_back(torch::nn::Linear(1, 1)); }
  torch::Tensor denoise(const torch::Tensor& x_t, const torch::Tensor&, const Condition&) override {
    return x_t + 0 * net_->parameters()[0].sum();
  }
};

class MlpDenoiser final : public PlaneDenoiser {
 public:
  MlpDenoiser(std::uint64_t seed, std::int64_t index) {
    const std::int64_t sizes[] = {3, 64, 64, 2};
    for (int layer = 0; layer < 3; ++layer) {
      torch::nn::Linear linear(sizes[layer], sizes[layer + 1]);
      torch::NoGradGuard no_grad;
      const double gain = layer == 2 ? 0.1 : 1.0;
      const std::int64_t sample[] = {index * 10 + layer};
      linear->weight.copy_(
          keyed_normal({seed, RandomStream::kInit, 0}, sample, {linear->weight.numel()}).view_as(linear->weight) *
          (gain / std::sqrt(static_cast<double>(sizes[layer]))));
      linear->bias.zero_();
      if (layer > 0) net_->push_back(torch::nn::SiLU());
      net_->push_back(linear);
    }
  }
  torch::Tensor denoise(const torch::Tensor& x_t, const torch::Tensor& t, const Condition&) override {
    const auto x = x_t.flatten(1);
    const auto sigma = t.view({-1, 1});
    const auto variance = sigma.square() + kSigmaData * kSigmaData;
    const auto input = torch::cat({x * variance.rsqrt(), sigma.log() / 4}, 1);
    const auto c_skip = kSigmaData * kSigmaData / variance;
    return (c_skip * x + sigma * kSigmaData * variance.rsqrt() * net_->forward(input)).view_as(x_t);
  }
};

class AdamUpdater final : public Updater {
 public:
  AdamUpdater(Denoiser& denoiser, double learning_rate)
      : parameters_(denoiser.module().parameters()),
        adam_(parameters_, torch::optim::AdamOptions(learning_rate).betas({0.0, 0.99}).eps(1e-8)) {}
  void add_micro_batch() override {}
  UpdateReport step() override {
    const double norm = torch::nn::utils::clip_grad_norm_(parameters_, 1.0);
    adam_.step();
    adam_.zero_grad();
    return {norm};
  }

 private:
  std::vector<torch::Tensor> parameters_;
  torch::optim::Adam adam_;
};

// Heun's method on the exact denoiser from 20 z: 18 steps, rho 7.
torch::Tensor teacher_samples(const torch::Tensor& z) {
  ExactScore exact;
  torch::NoGradGuard no_grad;
  auto x = z * kSigmaGenerator;
  std::vector<double> sigmas;
  for (int i = 0; i < 18; ++i) {
    const double lo = std::pow(0.002, 1 / 7.0), hi = std::pow(kSigmaGenerator, 1 / 7.0);
    sigmas.push_back(std::pow(hi + i / 17.0 * (lo - hi), 7));
  }
  sigmas.push_back(0);
  const auto slope = [&](const torch::Tensor& at, double sigma) {
    return (at - exact.denoise(at, torch::full({at.size(0)}, sigma, torch::kFloat32), {})) / sigma;
  };
  for (std::size_t i = 0; i + 1 < sigmas.size(); ++i) {
    const auto d = slope(x, sigmas[i]);
    auto next = x + (sigmas[i + 1] - sigmas[i]) * d;
    if (sigmas[i + 1] > 0) next = x + (sigmas[i + 1] - sigmas[i]) * 0.5 * (d + slope(next, sigmas[i + 1]));
    x = next;
  }
  return x;
}

struct Verdict {
  double share_a = 0, share_b = 0;  // within 3 deviations of each mode
  double spread = 0;                // deviation of the samples nearer to A, over the mode's own
};

Verdict run_toy(std::uint64_t seed, bool use_fake, bool use_pairs) {
  ExactScore real;
  ZeroScore zero;
  MlpDenoiser generator(seed, 1), trained_fake(seed, 2);
  Denoiser& fake = use_fake ? static_cast<Denoiser&>(trained_fake) : zero;
  AdamUpdater update_generator(generator, 1e-3), update_fake(fake, 5e-3);
  const DmdNetworks networks{generator, real, fake};
  DmdSettings settings;
  settings.seed = seed;
  settings.t_G = {kSigmaGenerator};
  settings.global_batch = kBatch;
  settings.global_pairs = kPairBatch;
  settings.lambda_reg = 0.25;
  settings.score = settings.fake = {0.1, 0.5};
  const L2Distance distance;
  const auto pair_z = keyed_normal({seed, RandomStream::kPairNoise, 0}, 0, kPairs, {2, 1, 1});
  const auto pair_y = teacher_samples(pair_z);

  MicroBatch batch;
  batch.num_samples = kBatch;
  std::uint32_t step = 0;
  for (; use_fake && step < 60; ++step) {
    (void)fake_score_step(networks, settings, step, std::span(&batch, 1), update_fake);
  }
  for (int i = 0; i < 600; ++i, ++step) {
    if (use_pairs) {
      const auto rows = keyed_integer({seed, RandomStream::kOrder, step}, 0, kPairBatch, kPairs);
      batch.pair_noise = pair_z.index_select(0, rows);
      batch.pair_image = pair_y.index_select(0, rows);
    }
    (void)dmd_step(networks, settings, step, std::span(&batch, 1), distance, update_generator, update_fake);
  }

  torch::NoGradGuard no_grad;
  const auto z = keyed_normal({seed, RandomStream::kEvaluationNoise, 0}, 0, 2000, {2, 1, 1});
  const auto x = generate(generator, z, {}, kSigmaGenerator).flatten(1);
  const auto distance_to = (x.unsqueeze(1) - modes()).norm(2, 2);  // (N, 2)
  const auto within = (distance_to < 3 * kModeDeviation).to(torch::kFloat64).mean(0);
  const auto nearer_a = x.index({distance_to.select(1, 0) < distance_to.select(1, 1)});
  Verdict verdict;
  verdict.share_a = within[0].item<double>();
  verdict.share_b = within[1].item<double>();
  verdict.spread = (nearer_a - nearer_a.mean(0)).square().mean().sqrt().item<double>() / kModeDeviation;
  return verdict;
}

class ToyTwoModes : public testing::TestWithParam<std::uint64_t> {
 protected:
  void SetUp() override { torch::set_num_threads(1); }
};

TEST_P(ToyTwoModes, RealScoreAloneCollapsesToTheNearerMode) {
  const Verdict verdict = run_toy(GetParam(), false, false);
  EXPECT_GT(verdict.share_a, 0.95);
  EXPECT_LT(verdict.spread, 0.3);
}

TEST_P(ToyTwoModes, RealAndFakeScoreCoverOneMode) {
  const Verdict verdict = run_toy(GetParam(), true, false);
  EXPECT_GT(verdict.share_a, 0.9);
  EXPECT_LT(verdict.share_b, 0.05);
  EXPECT_GT(verdict.spread, 0.6);
  EXPECT_LT(verdict.spread, 1.4);
}

TEST_P(ToyTwoModes, WithRegressionBothModesAreCovered) {
  const Verdict verdict = run_toy(GetParam(), true, true);
  EXPECT_GE(verdict.share_a, 0.3);
  EXPECT_GE(verdict.share_b, 0.3);
}

INSTANTIATE_TEST_SUITE_P(Seeds, ToyTwoModes, testing::Values(101, 102, 103, 104, 105));

}  // namespace
}  // namespace onestep
