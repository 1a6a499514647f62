// DDIM, PNDM and one step over a table of steps, against diffusers' schedulers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "common/error.h"
#include "support/files.h"
#include "support/parity.h"
#include "worker/sampling/sampler.h"
#include "worker/tensors/keyed_random.h"

namespace onestep {
namespace {

// raw(x, t) = 0.9 x + 0.1 sin(3 x) + 0.2 cos(t / 200), read as epsilon or as v: the golden file's network.
class ClosedFormSteps final : public Denoiser {
 public:
  explicit ClosedFormSteps(Prediction prediction) : prediction_(prediction) {}
  torch::Tensor denoise(const torch::Tensor& x_t, const torch::Tensor& t, const Condition&) override {
    timesteps.push_back(t[0].item<std::int64_t>());
    EXPECT_EQ(x_t.scalar_type(), torch::kFloat32);
    const auto x = x_t.to(torch::kFloat64);
    const auto raw = 0.9 * x + 0.1 * (3 * x).sin() + 0.2 * per_sample((t.to(torch::kFloat64) / 200).cos());
    return x0_from_prediction(prediction_, raw, x_t, schedule_.alpha(t), schedule_.sigma(t));
  }
  [[nodiscard]] const NoiseSchedule& schedule() const override { return schedule_; }
  [[nodiscard]] Prediction prediction() const override { return prediction_; }
  [[nodiscard]] ImageShape image_shape() const override { return {1, 1, 1}; }
  [[nodiscard]] std::int64_t num_classes() const override { return 0; }
  torch::nn::Module& module() override { return module_; }

  std::vector<std::int64_t> timesteps;

 private:
  Prediction prediction_;
  DiscreteSchedule schedule_ = DiscreteSchedule::scaled_linear(1000, 0.00085, 0.012);
  torch::nn::Module module_;
};

nlohmann::json golden_steps() {
  std::ifstream file(ONESTEP_SOURCE_DIR "/tests/golden/discrete_samplers.json");
  return nlohmann::json::parse(file);
}

TEST(DiscreteSamplers, FollowTheTrajectoriesOfDiffusers) {
  const auto golden = golden_steps();
  const std::string packages = versions_of(golden.at("versions"), {"diffusers"});
  for (const auto& json : golden.at("trajectories")) {
    SamplerSpec spec;
    spec.kind = json.at("kind");
    spec.steps = json.at("steps");
    spec.set_alpha_to_one = json.at("set_alpha_to_one");
    ClosedFormSteps denoiser(json.at("prediction") == "epsilon" ? Prediction::kEpsilon : Prediction::kV);
    const auto noise = torch::tensor(json.at("start").get<std::vector<float>>()).view({-1, 1, 1, 1});
    const auto images = sample(denoiser, spec, noise, {});
    EXPECT_EQ(denoiser.timesteps, json.at("timesteps").get<std::vector<std::int64_t>>());
    EXPECT_EQ(num_network_calls(spec), static_cast<std::int64_t>(denoiser.timesteps.size()));
    const auto ends = torch::tensor(json.at("end").get<std::vector<float>>());
    // diffusers' coefficients are roots in fp32 (6e-8 each), some fifty steps of them; our network's input and x0 are fp32.
    ParityRow row({spec.kind, packages, "closed form, " + std::to_string(spec.steps) + " steps, " + json.at("prediction").get<std::string>(),
                   "max abs(a - b) / (1 + abs(b))", "none: no gradient is kept"});
    row.forward(((images.flatten() - ends).abs() / (1 + ends.abs())).max().item<double>(), 1e-5);
  }
}

TEST(DiscreteSamplers, OneStepTakesItsTimestep) {
  ClosedFormSteps denoiser(Prediction::kEpsilon);
  SamplerSpec spec;
  spec.kind = "one_step";
  const auto noise = torch::full({2, 1, 1, 1}, 0.5f);
  const auto t = torch::full({2}, 999.0f);
  const auto images = sample(denoiser, spec, noise, {});
  EXPECT_TRUE(torch::equal(images, denoiser.denoise(noise, t, {})));
  spec.timestep = 399;  // DMD2's SDXL
  sample(denoiser, spec, noise, {});
  EXPECT_THAT(denoiser.timesteps, testing::ElementsAre(999, 999, 399));
  EXPECT_EQ(num_network_calls(spec), 1);
}

TEST(DiscreteSamplers, FewStepStartsFromTheNoiseItself) {
  ClosedFormSteps denoiser(Prediction::kEpsilon);
  SamplerSpec spec;
  spec.kind = "few_step";
  spec.timesteps = {999, 499};
  const auto noise = torch::full({2, 1, 1, 1}, 0.5f);
  const SampleRows rows{.seed = 4, .first = 1};
  const auto images = sample(denoiser, spec, noise, {}, {.rows = rows, .null_text = {}});
  const auto t = torch::full({2}, 499.0f);
  const auto x = denoiser.denoise(noise, torch::full({2}, 999.0f), {});
  const auto epsilon = keyed_normal({4, RandomStream::kSamplerNoise, 0}, 1, 2, {1, 1, 1});
  const auto x_t = per_sample(denoiser.schedule().alpha(t)) * x + per_sample(denoiser.schedule().sigma(t)) * epsilon;
  EXPECT_TRUE(torch::equal(images, denoiser.denoise(x_t, t, {})));
}

TEST(DiscreteSamplers, RefuseWhatDoesNotSuitThem) {
  ClosedFormSteps denoiser(Prediction::kEpsilon);
  const auto refused = [&](SamplerSpec spec) {
    const auto error = error_of([&] { sample(denoiser, spec, torch::zeros({1, 1, 1, 1}), {}); });
    return error && error->code == ErrorCode::kConfig ? error->message : "";
  };
  SamplerSpec spec;
  EXPECT_THAT(refused(spec), testing::HasSubstr("heun: expected a network whose noise is given by sigma"));
  spec.kind = "ddim";
  spec.steps = 1000;
  EXPECT_THAT(refused(spec), testing::HasSubstr("stay below the table's 1000 steps, found steps 1000, steps_offset 1"));
  spec.steps_offset = 0;
  EXPECT_EQ(refused(spec), "");
  spec = {};
  spec.kind = "pndm";
  spec.steps = 1;
  EXPECT_THAT(refused(spec), testing::HasSubstr("pndm: steps: expected 2 or more, found 1"));
  spec.kind = "one_step";
  spec.timestep = 1000;
  EXPECT_THAT(refused(spec), testing::HasSubstr("expected a step from 0 to 999, found 1000"));
  spec.kind = "few_step";
  spec.timesteps = {1000, 1};
  EXPECT_THAT(refused(spec), testing::HasSubstr("expected steps from 0 to 999, found 1000"));
  spec.timesteps = {999, 1.5};
  EXPECT_THAT(refused(spec), testing::HasSubstr("expected steps from 0 to 999, found 1.5"));
}

}  // namespace
}  // namespace onestep
