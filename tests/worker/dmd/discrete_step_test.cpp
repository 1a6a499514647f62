// One dmd_step on a network of discrete steps and text, against its formulas written out in plain numbers.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "worker/diffusion/guidance.h"
#include "worker/dmd/dmd_step.h"
#include "worker/dmd/generated_samples.h"
#include "worker/dmd/losses.h"
#include "worker/tensors/keyed_random.h"

namespace onestep {
namespace {

constexpr std::int64_t kSteps = 1000, kSamples = 3, kPairRows = 2, kElements = 4;
constexpr double kScale = 3.0;

// epsilon = a x_t + b + s * mean(text): three numbers to differentiate by.
class LinearEpsilon final : public Denoiser {
 public:
  LinearEpsilon(double slope, double offset, double of_text) : a(slope), b(offset), s(of_text) {
    for (const auto& [name, value] : {std::pair{"a", a}, {"b", b}, {"s", s}}) {
      module_.register_parameter(name, torch::full({1}, value, torch::kFloat32).requires_grad_(true));
    }
  }
  torch::Tensor denoise(const torch::Tensor& x_t, const torch::Tensor& t, const Condition& condition) override {
    const auto parameters = module_.named_parameters();
    const auto text = condition.text.mean({1, 2}).view({-1, 1, 1, 1});
    const auto epsilon = parameters["a"] * x_t + parameters["b"] + parameters["s"] * text;
    return x0_from_prediction(Prediction::kEpsilon, epsilon, x_t, schedule_.alpha(t), schedule_.sigma(t));
  }
  [[nodiscard]] const DiscreteSchedule& schedule() const override { return schedule_; }
  [[nodiscard]] Prediction prediction() const override { return Prediction::kEpsilon; }
  [[nodiscard]] ImageShape image_shape() const override { return {1, 2, 2}; }
  [[nodiscard]] std::int64_t num_classes() const override { return 0; }
  torch::nn::Module& module() override { return module_; }

  double a, b, s;

 private:
  DiscreteSchedule schedule_ = DiscreteSchedule::scaled_linear(kSteps, 0.00085, 0.012);
  torch::nn::Module module_;
};

// Keeps the gradient of the one micro-batch.
class KeptGradient final : public Updater {
 public:
  explicit KeptGradient(Denoiser& denoiser) : module_(denoiser.module()) {}
  void add_micro_batch() override {
    for (const char* name : {"a", "b", "s"}) values.push_back(module_.named_parameters()[name].grad().item<double>());
    module_.zero_grad();
  }
  UpdateReport step() override { return {}; }
  std::vector<double> values;

 private:
  torch::nn::Module& module_;
};

// A tensor's numbers, row by row.
std::vector<double> numbers(const torch::Tensor& tensor) {
  const auto values = tensor.to(torch::kFloat64).contiguous();
  return {values.const_data_ptr<double>(), values.const_data_ptr<double>() + values.numel()};
}

struct Level {
  double alpha, sigma;
};
Level level_of(double t) {
  // beta_i = (sqrt(beta_0) + i/(T-1) (sqrt(beta_1) - sqrt(beta_0)))^2
  double alpha_bar = 1;
  for (int i = 0; i <= static_cast<int>(t); ++i) {
    const double root = std::sqrt(0.00085) + i / (kSteps - 1.0) * (std::sqrt(0.012) - std::sqrt(0.00085));
    alpha_bar *= 1 - root * root;
  }
  return {std::sqrt(alpha_bar), std::sqrt(1 - alpha_bar)};
}

class DiscreteDmd : public ::testing::Test {
 protected:
  DiscreteDmd() {
    settings.seed = 11;
    settings.t_G = {kSteps - 1};
    settings.global_batch = kSamples;
    settings.global_pairs = kPairRows;
    settings.lambda_dm = 0.7;
    settings.lambda_reg = 0.3;
    settings.score = {generator.schedule().noise_level(20), generator.schedule().noise_level(980)};
    settings.fake = {generator.schedule().noise_level(0), generator.schedule().noise_level(kSteps - 1)};
    batch.num_samples = kSamples;
    batch.text = keyed_normal({1, RandomStream::kInit, 0}, 0, kSamples, {2, 3});
    batch.pair_noise = keyed_normal({1, RandomStream::kInit, 1}, 0, kPairRows, {1, 2, 2});
    batch.pair_image = keyed_normal({1, RandomStream::kInit, 2}, 0, kPairRows, {1, 2, 2});
    batch.pair_label = torch::tensor({4, 1}, torch::kInt64);
    batch.pair_text = keyed_normal({1, RandomStream::kInit, 3}, 0, kPairRows, {2, 3});
  }
  [[nodiscard]] std::vector<double> noise(RandomStream stream) const {
    return numbers(keyed_normal({settings.seed, stream, kStep}, 0, kSamples, {1, 2, 2}));
  }
  // Steps first .. last inclusive, each as likely.
  [[nodiscard]] std::vector<double> steps(RandomStream stream, double first, double last) const {
    auto values = numbers(keyed_uniform({settings.seed, stream, kStep}, 0, kSamples));
    for (double& u : values) u = first + std::floor(u * (last - first + 1));
    return values;
  }
  // x = (z - sigma_T epsilon(z)) / alpha_T.
  [[nodiscard]] double generated(double z, double text) const {
    const Level top = level_of(kSteps - 1);
    return (z - top.sigma * (generator.a * z + generator.b + generator.s * text)) / top.alpha;
  }

  static constexpr std::uint32_t kStep = 5;
  LinearEpsilon generator{0.99, 0.01, 0.02}, real{0.6, -0.1, 0.3}, fake{0.5, 0.2, -0.1};
  torch::Tensor null_text = torch::full({1, 2, 3}, -0.4);
  DmdSettings settings;
  MicroBatch batch;
};

TEST_F(DiscreteDmd, BothGradientsAreTheFormulas) {
  KeptGradient update_generator(generator), update_fake(fake);
  GuidedDenoiser guided(real, kScale, null_text);
  const DmdReport report = dmd_step({generator, guided, fake}, settings, kStep, std::span(&batch, 1), L2Distance(),
                                    update_generator, update_fake);

  const Level top = level_of(kSteps - 1);
  const auto z = noise(RandomStream::kGeneratorNoise), score_noise = noise(RandomStream::kScoreNoise);
  const auto fake_noise = noise(RandomStream::kFakeNoise);
  const auto t = steps(RandomStream::kScoreSigma, 20, 980), t_fake = steps(RandomStream::kFakeSigma, 0, kSteps - 1);
  const auto text = numbers(batch.text.mean({1, 2})), pair_text = numbers(batch.pair_text.mean({1, 2}));
  double generator_gradient[3] = {}, fake_gradient[3] = {};
  double loss_fake = 0;
  for (std::size_t i = 0; i < kSamples; ++i) {
    // DMD Alg. 2: (mu_fake - mu_real) / mean |x - mu_real|, mu_real guided.
    const Level level = level_of(t[i]);
    double mu_real[kElements], mu_fake[kElements], x[kElements], denominator = 0;
    for (std::size_t j = 0; j < kElements; ++j) {
      x[j] = generated(z[i * kElements + j], text[i]);
      const double x_t = level.alpha * x[j] + level.sigma * score_noise[i * kElements + j];
      const double without = real.a * x_t + real.b + real.s * -0.4, with = real.a * x_t + real.b + real.s * text[i];
      mu_real[j] = (x_t - level.sigma * (without + kScale * (with - without))) / level.alpha;
      mu_fake[j] = (x_t - level.sigma * (fake.a * x_t + fake.b + fake.s * text[i])) / level.alpha;
      denominator += std::abs(x[j] - mu_real[j]) / kElements;
    }
    // Alg. 3 in the network's own words: mean (epsilon - epsilon_fake)^2.
    const Level fake_level = level_of(t_fake[i]);
    for (std::size_t j = 0; j < kElements; ++j) {
      const double gradient = settings.lambda_dm * (mu_fake[j] - mu_real[j]) / denominator / (kSamples * kElements);
      const double to_epsilon = -top.sigma / top.alpha;
      generator_gradient[0] += gradient * to_epsilon * z[i * kElements + j];
      generator_gradient[1] += gradient * to_epsilon;
      generator_gradient[2] += gradient * to_epsilon * text[i];
      const double epsilon = fake_noise[i * kElements + j], x_t = fake_level.alpha * x[j] + fake_level.sigma * epsilon;
      const double error = fake.a * x_t + fake.b + fake.s * text[i] - epsilon;
      loss_fake += error * error / (kSamples * kElements);
      fake_gradient[0] += 2 * error * x_t / (kSamples * kElements);
      fake_gradient[1] += 2 * error / (kSamples * kElements);
      fake_gradient[2] += 2 * error * text[i] / (kSamples * kElements);
    }
  }
  const auto pair_z = numbers(batch.pair_noise), pair_y = numbers(batch.pair_image);
  for (std::size_t i = 0; i < kPairRows; ++i) {
    for (std::size_t j = 0; j < kElements; ++j) {
      const std::size_t k = i * kElements + j;
      const double gradient = settings.lambda_reg * 2 * (generated(pair_z[k], pair_text[i]) - pair_y[k]) / (kPairRows * kElements);
      generator_gradient[0] += gradient * -top.sigma / top.alpha * pair_z[k];
      generator_gradient[1] += gradient * -top.sigma / top.alpha;
      generator_gradient[2] += gradient * -top.sigma / top.alpha * pair_text[i];
    }
  }
  // fp32 against fp64; the noisy end multiplies an error by 14.6, and the step's table is fp32.
  constexpr double kTolerance = 2e-4;
  ASSERT_EQ(update_generator.values.size(), 3u);
  ASSERT_EQ(update_fake.values.size(), 3u);
  for (std::size_t p = 0; p < 3; ++p) {
    EXPECT_NEAR(update_generator.values[p] / generator_gradient[p], 1, kTolerance) << p;
    EXPECT_NEAR(update_fake.values[p] / fake_gradient[p], 1, kTolerance) << p;
  }
  EXPECT_NEAR(report.micro_batches[0].loss_fake / loss_fake, 1, kTolerance);
}

// A label that is a prompt's number is never taken for a class.
TEST_F(DiscreteDmd, TheWarmUpSeesThePairsText) {
  KeptGradient update(generator);
  (void)regression_step(generator, settings, std::span(&batch, 1), L2Distance(), update);
  MicroBatch other = batch;
  other.pair_label = torch::tensor({0, 0}, torch::kInt64);
  (void)regression_step(generator, settings, std::span(&other, 1), L2Distance(), update);
  other.pair_text = batch.pair_text + 1;
  (void)regression_step(generator, settings, std::span(&other, 1), L2Distance(), update);
  for (std::size_t p = 0; p < 3; ++p) EXPECT_EQ(update.values[p], update.values[3 + p]);
  EXPECT_NE(update.values[0], update.values[6]);
}

// DMD2's backward simulation, step by step; pairs stay on the first step, and join behind the fresh samples.
TEST_F(DiscreteDmd, ALaterStepStartsFromWhatTheEarlierOnesLeadTo) {
  settings.t_G = {kSteps - 1, 499};
  settings.regression_joins_dm = true;
  const auto every = [](double t, std::int64_t rows) { return torch::full({rows}, t, torch::kFloat32); };
  std::vector<int> times(2, 0);
  for (std::uint32_t step = 0; step < 16; ++step) {
    const Draws draws(settings, step, batch, generator);
    const GeneratedSamples made = generate_samples(generator, settings, draws, batch);
    ASSERT_EQ(made.x.size(0), kSamples + kPairRows);
    ++times.at(draws.student_step());
    auto x = generator.denoise(keyed_normal({settings.seed, RandomStream::kGeneratorNoise, step}, 0, kSamples, {1, 2, 2}),
                               every(kSteps - 1, kSamples), {{}, batch.text});
    if (draws.student_step() == 1) {
      const auto epsilon = keyed_normal({settings.seed, RandomStream::kBackwardNoise, step}, 0, kSamples, {1, 2, 2});
      x = generator.denoise(diffuse(generator.schedule(), x, epsilon, every(499, kSamples)), every(499, kSamples), {{}, batch.text});
    }
    const auto x_ref = generator.denoise(batch.pair_noise, every(kSteps - 1, kPairRows), {{}, batch.pair_text});
    EXPECT_TRUE(torch::equal(made.x.narrow(0, 0, kSamples), x)) << step;
    EXPECT_TRUE(torch::equal(made.x_ref, x_ref)) << step;
    EXPECT_TRUE(torch::equal(made.x.narrow(0, kSamples, kPairRows), x_ref)) << step;
    EXPECT_TRUE(torch::equal(made.condition.text, torch::cat({batch.text, batch.pair_text}))) << step;
  }
  EXPECT_GT(times[0], 0);
  EXPECT_GT(times[1], 0);
}

}  // namespace
}  // namespace onestep
