// Euler, and the noise that Heun and Euler put back, against Algorithm 2 written in NumPy.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "common/error.h"
#include "support/files.h"
#include "support/parity.h"
#include "worker/sampling/sampler.h"

namespace onestep {
namespace {

// D(x; sigma) = 0.3 x / (1 + sigma^2) + 0.1.
class ClosedFormSigma final : public Denoiser {
 public:
  explicit ClosedFormSigma(NoiseLevels levels = {}) : schedule_(0.5, 7.0, std::move(levels)) {}
  torch::Tensor denoise(const torch::Tensor& x_t, const torch::Tensor& t, const Condition&) override {
    ++calls;
    sigmas.push_back(t[0].item<double>());
    return 0.3 * x_t / (1 + per_sample(t).square()) + 0.1;
  }
  [[nodiscard]] const NoiseSchedule& schedule() const override { return schedule_; }
  [[nodiscard]] Prediction prediction() const override { return Prediction::kX0; }
  [[nodiscard]] ImageShape image_shape() const override { return {1, 2, 2}; }
  [[nodiscard]] std::int64_t num_classes() const override { return 0; }
  torch::nn::Module& module() override { return module_; }

  std::int64_t calls = 0;
  std::vector<double> sigmas;

 private:
  EdmSchedule schedule_;
  torch::nn::Module module_;
};

nlohmann::json golden_sigmas() {
  std::ifstream file(ONESTEP_SOURCE_DIR "/tests/golden/sigma_samplers.json");
  return nlohmann::json::parse(file);
}

SamplerSpec spec_of(const nlohmann::json& json) {
  SamplerSpec spec;
  spec.kind = json.at("kind");
  spec.steps = json.at("steps");
  spec.S_churn = json.at("S_churn");
  spec.S_min = json.at("S_min");
  spec.S_max = json.at("S_max");
  spec.S_noise = json.at("S_noise");
  return spec;
}

torch::Tensor noise_of(const nlohmann::json& json) {
  return torch::tensor(json.at("start").get<std::vector<float>>()).view({-1, 1, 1, 1}).expand({-1, 1, 2, 2}).contiguous();
}

TEST(SigmaSamplers, FollowTheGoldenTrajectories) {
  const auto golden = golden_sigmas();
  for (const auto& json : golden.at("trajectories")) {
    const SamplerSpec spec = spec_of(json);
    ClosedFormSigma denoiser;
    SampleOptions options;
    options.rows = SampleRows{json.at("seed"), json.at("first_row")};
    const auto noise = noise_of(json);
    const auto images = sample(denoiser, spec, noise, {}, options);
    EXPECT_EQ(denoiser.calls, num_network_calls(spec));
    std::vector<float> ends;
    for (const auto& row : json.at("end")) {
      for (const float value : row) ends.push_back(value);
    }
    // The network's input is rounded to fp32 (80 * 2^-24 at the noisy end), and so is the keyed noise (1e-6); every step shrinks
    // what came before it.
    ParityRow row({spec.kind, "twin, " + versions_of(golden.at("versions"), {"numpy"}),
                   "closed form, " + std::to_string(spec.steps) + " steps, " + (spec.S_churn > 0 ? "churned" : "no churn"), kAbsolute,
                   "none: no gradient is kept"});
    row.forward((images.flatten() - torch::tensor(ends)).abs().max().item<double>(), 1e-5);
  }
}

// The noise belongs to the rows, not to the batch.
TEST(SigmaSamplers, NoiseOfARowDoesNotDependOnTheBatch) {
  const auto json = golden_sigmas().at("trajectories")[1];
  const SamplerSpec spec = spec_of(json);
  ClosedFormSigma denoiser;
  const auto noise = noise_of(json);
  const auto part = [&](std::int64_t first, std::int64_t count) {
    SampleOptions options;
    options.rows = SampleRows{5, 40 + first};
    return sample(denoiser, spec, noise.narrow(0, first, count), {}, options);
  };
  EXPECT_TRUE(torch::equal(part(0, 4), torch::cat({part(0, 1), part(1, 3)})));
}

// A network with levels (iDDPM) is only ever asked at these.
TEST(SigmaSamplers, StepsGoToTheNetworksLevels) {
  NoiseLevels levels{0.001, 100, {100, 50, 20, 10, 5, 2, 1, 0.5, 0.1, 0.001}};
  ClosedFormSigma denoiser(levels);
  SamplerSpec spec;
  spec.kind = "euler";
  spec.steps = 4;
  spec.S_churn = 1;
  SampleOptions options;
  options.rows = SampleRows{1, 0};
  sample(denoiser, spec, torch::ones({1, 1, 2, 2}), {}, options);
  for (const double sigma : denoiser.sigmas) {
    EXPECT_THAT(levels.allowed, testing::Contains(testing::DoubleNear(sigma, 1e-6))) << sigma;  // t is fp32
  }
  EXPECT_EQ(denoiser.sigmas.size(), 4u);
}

TEST(SigmaSamplers, RefuseWhatDoesNotSuitThem) {
  const auto refused = [](const SamplerSpec& spec, Denoiser&& denoiser) {
    const auto error = error_of([&] { sample(denoiser, spec, torch::ones({1, 1, 2, 2}), {}); });
    return error && error->code == ErrorCode::kConfig ? error->message : "";
  };
  SamplerSpec spec;
  spec.S_churn = 40;
  EXPECT_THAT(refused(spec, ClosedFormSigma()), testing::HasSubstr("expected the rows' seed and indices"));
  spec = {};
  spec.S_churn = -1;
  EXPECT_THAT(refused(spec, ClosedFormSigma()), testing::HasSubstr("S_churn >= 0"));
  spec = {};
  EXPECT_THAT(refused(spec, ClosedFormSigma({0.02, 100, {}})), testing::HasSubstr("0.020000 to 100.000000, found 0.002000"));
  spec.kind = "ddim";
  EXPECT_THAT(refused(spec, ClosedFormSigma()), testing::HasSubstr("ddim: expected a network of discrete steps"));
}

}  // namespace
}  // namespace onestep
