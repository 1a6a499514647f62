#include "worker/sampling/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <functional>

#include <nlohmann/json.hpp>

#include "common/error.h"
#include "support/parity.h"
#include "worker/sampling/few_step.h"
#include "worker/sampling/sigma_steps.h"
#include "worker/tensors/keyed_random.h"

namespace onestep {
namespace {

// D(x; sigma) = 0.3 x / (1 + sigma^2) + 0.1 + 0.01 label: the golden files' denoiser when labels
// are 0 or absent.
class ClosedForm final : public Denoiser {
 public:
  torch::Tensor denoise(const torch::Tensor& x_t, const torch::Tensor& t,
                        const Condition& condition) override {
    ++calls;
    gradients_on |= torch::GradMode::is_enabled();
    EXPECT_EQ(x_t.scalar_type(), torch::kFloat32);
    EXPECT_EQ(t.scalar_type(), torch::kFloat32);
    EXPECT_EQ(t.size(0), x_t.size(0));
    sigmas.push_back(t[0].item<double>());
    auto x0 = 0.3 * x_t / (1 + per_sample(t).square()) + 0.1;
    if (condition.labels.defined())
      x0 = x0 + 0.01 * per_sample(condition.labels.to(torch::kFloat32));
    return x0;
  }
  [[nodiscard]] const NoiseSchedule& schedule() const override { return schedule_; }
  [[nodiscard]] Prediction prediction() const override { return Prediction::kX0; }
  [[nodiscard]] ImageShape image_shape() const override { return {1, 2, 2}; }
  [[nodiscard]] std::int64_t num_classes() const override { return 10; }
  torch::nn::Module& module() override { return module_; }

  std::int64_t calls = 0;
  bool gradients_on = false;
  std::vector<double> sigmas;

 private:
  EdmSchedule schedule_;
  torch::nn::Module module_;
};

nlohmann::json golden() {
  std::ifstream file(ONESTEP_SOURCE_DIR "/tests/golden/heun_sampler.json");
  return nlohmann::json::parse(file);
}

std::string twin_of_heun(const nlohmann::json& json) { return "twin, " + versions_of(json.at("versions"), {"python"}); }

// z of the golden trajectories, one a row, the same number in each pixel.
torch::Tensor golden_noise(const nlohmann::json& json) {
  std::vector<float> starts;
  for (const auto& trajectory : json.at("trajectories"))
    starts.push_back(trajectory.at("start").get<float>());
  return torch::tensor(starts).view({-1, 1, 1, 1}).expand({-1, 1, 2, 2}).contiguous();
}

TEST(Sampler, HeunSigmasAreThePublishedOnes) {
  const std::vector<double> published = {
      80,      57.585985, 40.785574, 28.374585, 19.352453, 12.910082, 8.400935, 5.315195, 3.256822,
      1.92334, 1.088171,  .585348,   .296442,   .139516,   .059947,   .022935,  .007528,  .002};
  const auto sigmas = sigma_steps({}, EdmSchedule());
  ASSERT_EQ(sigmas.size(), 19u);
  for (std::size_t i = 0; i < published.size(); ++i)
    EXPECT_NEAR(sigmas[i], published[i], 1e-6);  // six decimals given
  EXPECT_EQ(sigmas.back(), 0);
  const auto json = golden();
  ParityRow row({"noise table of EDM", twin_of_heun(json), "18 steps, fp64", "max abs(a - b) / 80", "none: a table"});
  for (std::size_t i = 0; i < sigmas.size(); ++i) {
    row.forward(std::abs(sigmas[i] - json.at("sigmas")[i].get<double>()) / 80, 1e-12);  // rounding of pow
  }
}

TEST(Sampler, HeunFollowsTheGoldenTrajectories) {
  const auto json = golden();
  ClosedForm denoiser;
  const auto images = sample(denoiser, {}, golden_noise(json), {});
  EXPECT_EQ(images.scalar_type(), torch::kFloat32);
  EXPECT_EQ(denoiser.calls, 35);
  EXPECT_EQ(num_network_calls({}), 35);
  ParityRow row({"heun", twin_of_heun(json), "closed form, 18 steps", kAbsolute, "none: no gradient is kept"});
  for (std::int64_t i = 0; i < images.size(0); ++i) {
    const double end = json.at("trajectories")[static_cast<std::size_t>(i)].at("end").get<double>();
    // The network's input is rounded to fp32: 80 * 2^-24 at the first step, shrunk by every step
    // after it.
    row.forward((images[i].to(torch::kFloat64) - end).abs().max().item<double>(), 2e-6);
  }
}

// The same method written for one number, for other steps, ranges and a label.
double heun_twin(double z, int steps, double sigma_min, double sigma_max, double rho, int label) {
  const auto denoise = [label](double x, double sigma) {
    return 0.3 * x / (1 + sigma * sigma) + 0.1 + 0.01 * label;
  };
  const auto level = [&](int i) {
    if (i == steps) return 0.0;
    const double a = std::pow(sigma_max, 1 / rho), b = std::pow(sigma_min, 1 / rho);
    return std::pow(a + (b - a) * i / (steps - 1), rho);
  };
  double x = z * level(0);
  for (int i = 0; i < steps; ++i) {
    const double here = level(i), there = level(i + 1);
    const double k1 = (x - denoise(x, here)) / here;
    const double euler = x + (there - here) * k1;
    x = there == 0 ? euler
                   : x + (there - here) * (k1 + (euler - denoise(euler, there)) / there) / 2;
  }
  return x;
}

TEST(Sampler, HeunTakesItsOptionsAndLabels) {
  SamplerSpec spec;
  spec.steps = 5;
  spec.sigma_min = 0.01;
  spec.sigma_max = 10;
  spec.rho = 3;
  ClosedForm denoiser;
  const auto noise =
      torch::tensor({0.5f, -1.25f}).view({2, 1, 1, 1}).expand({2, 1, 2, 2}).contiguous();
  const auto images = sample(denoiser, spec, noise, {torch::tensor({3, 7}, torch::kInt64), {}});
  EXPECT_EQ(denoiser.calls, 9);
  EXPECT_NEAR(images[0][0][1][1].item<double>(), heun_twin(0.5, 5, 0.01, 10, 3, 3),
              1e-6);  // fp32 network
  EXPECT_NEAR(images[1][0][1][1].item<double>(), heun_twin(-1.25, 5, 0.01, 10, 3, 7), 1e-6);
}

TEST(Sampler, RowsDoNotSeeEachOther) {
  torch::manual_seed(1);
  const auto noise = torch::randn({6, 1, 2, 2});
  const auto labels = torch::arange(6);
  ClosedForm denoiser;
  for (const char* kind : {"heun", "euler", "one_step"}) {
    SamplerSpec spec;
    spec.kind = kind;
    const auto whole = sample(denoiser, spec, noise, {labels, {}});
    const auto cut =
        torch::cat({sample(denoiser, spec, noise.narrow(0, 0, 2), {labels.narrow(0, 0, 2), {}}),
                    sample(denoiser, spec, noise.narrow(0, 2, 4), {labels.narrow(0, 2, 4), {}})});
    EXPECT_TRUE(torch::equal(whole, cut)) << kind;
    EXPECT_TRUE(torch::equal(whole, sample(denoiser, spec, noise, {labels, {}}))) << kind;
  }
}

TEST(Sampler, OneStepIsOneCallAtSigmaMax) {
  SamplerSpec spec;
  spec.kind = "one_step";
  spec.sigma_max = 40;
  ClosedForm denoiser;
  const auto noise = torch::full({3, 1, 2, 2}, 0.75f);
  const auto images = sample(denoiser, spec, noise, {});
  EXPECT_EQ(denoiser.calls, 1);
  EXPECT_EQ(num_network_calls(spec), 1);
  EXPECT_EQ(denoiser.sigmas, std::vector<double>{40});
  EXPECT_NEAR(images[2][0][1][0].item<double>(), 0.3 * 30 / 1601 + 0.1, 1e-7);
}

TEST(Sampler, FewStepOfOneTimestepIsOneStep) {
  SamplerSpec one, few;
  one.kind = "one_step";
  few.kind = "few_step";
  few.timesteps = {80};
  ClosedForm denoiser;
  const auto noise = torch::full({3, 1, 2, 2}, 0.75f);
  EXPECT_TRUE(torch::equal(sample(denoiser, few, noise, {}), sample(denoiser, one, noise, {})));
  EXPECT_EQ(num_network_calls(few), 1);
}

// x = D(t_0 z), then D(x + t_i epsilon_i) with the keyed noise of each row.
TEST(Sampler, FewStepDiffusesToEachNextTimestep) {
  SamplerSpec spec;
  spec.kind = "few_step";
  spec.timesteps = {40, 3, 0.5};
  ClosedForm denoiser;
  torch::manual_seed(2);
  const auto noise = torch::randn({4, 1, 2, 2});
  const SampleRows rows{.seed = 9, .first = 5};
  const auto images = sample(denoiser, spec, noise, {}, {.rows = rows, .null_text = {}});
  EXPECT_EQ(denoiser.sigmas, spec.timesteps);
  EXPECT_EQ(num_network_calls(spec), 3);
  auto x = denoiser.denoise(40 * noise, torch::full({4}, 40.0f), {});
  for (const std::uint32_t i : {0U, 1U}) {
    const auto t = static_cast<float>(spec.timesteps[i + 1]);
    const auto epsilon = keyed_normal({9, RandomStream::kSamplerNoise, i}, 5, 4, {1, 2, 2});
    EXPECT_TRUE(torch::equal(epsilon, few_step_noise(rows, i, noise.sizes())));
    x = denoiser.denoise(x + t * epsilon, torch::full({4}, t), {});
  }
  EXPECT_TRUE(torch::equal(images, x));
  // A row's image follows from its own index alone.
  const auto tail = sample(denoiser, spec, noise.narrow(0, 2, 2), {}, {.rows = SampleRows{.seed = 9, .first = 7}, .null_text = {}});
  EXPECT_TRUE(torch::equal(tail, images.narrow(0, 2, 2)));
}

TEST(Sampler, KeepsNoGradient) {
  ClosedForm denoiser;
  const auto images = sample(denoiser, {}, torch::ones({1, 1, 2, 2}).requires_grad_(true), {});
  EXPECT_FALSE(images.requires_grad());
  EXPECT_FALSE(denoiser.gradients_on);
  EXPECT_TRUE(torch::GradMode::is_enabled());
}

void expect_error(ErrorCode code, const std::string& part, const std::function<void()>& action) {
  try {
    action();
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    EXPECT_THAT(error.what(), ::testing::HasSubstr(part));
  }
}

TEST(Sampler, RefusesWhatDoesNotFit) {
  ClosedForm denoiser;
  const auto noise = torch::zeros({2, 1, 2, 2});
  SamplerSpec spec;
  spec.kind = "huen";
  expect_error(ErrorCode::kConfig, "heun, euler, ddim, pndm, one_step, few_step, found huen",
               [&] { sample(denoiser, spec, noise, {}); });
  spec.kind = "few_step";
  expect_error(ErrorCode::kConfig, "expected the student's, found none", [&] { sample(denoiser, spec, noise, {}); });
  spec.timesteps = {3, 3};
  expect_error(ErrorCode::kConfig, "expected less than the one before it, found 3", [&] { sample(denoiser, spec, noise, {}); });
  spec.timesteps = {3, 0};
  expect_error(ErrorCode::kConfig, "expected sigmas above 0, found 0", [&] { sample(denoiser, spec, noise, {}); });
  spec.timesteps = {3, 1};
  expect_error(ErrorCode::kConfig, "expected the rows' seed and indices, found none", [&] { sample(denoiser, spec, noise, {}); });
  spec = {};
  spec.steps = 1;
  expect_error(ErrorCode::kConfig, "steps >= 2", [&] { sample(denoiser, spec, noise, {}); });
  spec = {};
  spec.sigma_min = 90;
  expect_error(ErrorCode::kConfig, "sigma_min < sigma_max",
               [&] { sample(denoiser, spec, noise, {}); });
  expect_error(ErrorCode::kMismatch, "[B,1,2,2]", [&] {
    sample(denoiser, {}, torch::zeros({2, 1, 2, 3}), {});
  });
  expect_error(ErrorCode::kMismatch, "fp32",
               [&] { sample(denoiser, {}, noise.to(torch::kFloat64), {}); });
  expect_error(ErrorCode::kMismatch, "labels", [&] {
    sample(denoiser, {}, noise, {torch::zeros({3}, torch::kInt64), {}});
  });
  EXPECT_EQ(denoiser.calls, 0);
}

}  // namespace
}  // namespace onestep
