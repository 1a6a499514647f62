// Whole trajectories of small networks: diffusers' pipeline, and Algorithm 2 around the PyTorch twins (tools/golden/make_trajectories_golden.py).
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "support/golden.h"
#include "support/parity.h"
#include "worker/models/model_factory.h"
#include "worker/models/sd_denoiser.h"
#include "worker/sampling/sampler.h"

namespace onestep {
namespace {

using nlohmann::json;

SafetensorsFile trajectory_file(const std::string& name) { return SafetensorsFile(ONESTEP_SOURCE_DIR "/tests/golden/" + name + ".safetensors"); }

std::string packages_of(const SafetensorsFile& golden, const char* package) {
  return versions_of(json::parse(golden.metadata().at("versions")), {package});
}

struct SdTrajectory {
  const char* name;
  const char* component;
  const char* kind;
  double guidance;
};

class SdTrajectories : public testing::TestWithParam<SdTrajectory> {};

TEST_P(SdTrajectories, EndWhereDiffusersDoes) {
  const auto golden = trajectory_file("trajectories"), weights = trajectory_file("sd_unet_1");
  SdDenoiser denoiser(sd_unet_config_from_json(json::parse(weights.metadata().at("config")), weights.path()), {});
  fill_golden(denoiser.module());
  const std::int64_t width = denoiser.unet()->config().cross_attention_dim;
  SamplerSpec spec;
  spec.kind = GetParam().kind;
  spec.steps = 10;
  spec.guidance_scale = GetParam().guidance;
  SampleOptions options;
  options.null_text = golden_draw("input.null_text", {1, 5, width});
  const auto latents = sample(denoiser, spec, golden_draw("input.noise", {2, 4, 8, 8}), {{}, golden_draw("input.text", {2, 5, width})}, options);
  const std::string how = std::string(GetParam().kind) + (GetParam().guidance > 1 ? ", guidance 5" : "");
  ParityRow row({GetParam().component, packages_of(golden, "diffusers"), "small sd_unet, " + how + ", whole trajectory, 2 x 4 x 8 x 8 fp32",
                 kRelativeNorm, "none: no gradient is kept"});
  row.forward(relative_error(latents, golden_tensor(golden, GetParam().name)), 1e-5);  // the recipe prints 1e-6 between fp32 and fp64
}

INSTANTIATE_TEST_SUITE_P(Pipelines, SdTrajectories,
                         testing::Values(SdTrajectory{"ddim", "ddim", "ddim", 1},
                                         SdTrajectory{"ddim_guided", "classifier-free guidance", "ddim", 5},
                                         SdTrajectory{"pndm_guided", "pndm", "pndm", 5},
                                         SdTrajectory{"lcm", "one_step", "one_step", 1}));

struct EdmTrajectory {
  const char* kind;
  const char* network;
};

class EdmTrajectories : public testing::TestWithParam<EdmTrajectory> {};

TEST_P(EdmTrajectories, EndWhereTheTwinDoes) {
  const auto golden = trajectory_file("trajectories"), weights = trajectory_file(GetParam().network);
  const NetworkSpec network = network_spec_from_json(json::parse(weights.metadata().at("config")), weights.path());
  const auto denoiser = make_denoiser(network, 0);
  {
    torch::NoGradGuard no_grad;
    for (auto& item : denoiser->module().named_parameters()) item.value().copy_(golden_tensor(weights, "weights." + item.key()));
    for (auto& item : denoiser->module().named_buffers()) item.value().copy_(golden_tensor(weights, "weights." + item.key()));
  }
  Condition condition;
  if (weights.find("input.labels") != nullptr) condition.labels = golden_tensor(weights, "input.labels").argmax(1);
  SamplerSpec spec;
  spec.kind = GetParam().kind;
  const auto images = sample(*denoiser, spec, golden_draw("input.noise", {3, 3, network.image_size, network.image_size}), condition);
  ParityRow row({GetParam().kind, "twin, " + packages_of(golden, "torch"), std::string("small song_unet, ") + network.encoder_type +
                     " encoder, whole trajectory, 3 x 3 x " + std::to_string(network.image_size) + " x " + std::to_string(network.image_size) + " fp32",
                 kRelativeNorm, "none: no gradient is kept"});
  row.forward(relative_error(images, golden_tensor(golden, GetParam().kind)), 1e-5);  // the recipe prints 1e-6 between fp32 and fp64
}

INSTANTIATE_TEST_SUITE_P(Twins, EdmTrajectories,
                         testing::Values(EdmTrajectory{"heun", "song_ddpmpp_edm"}, EdmTrajectory{"euler", "song_ncsnpp_edm"},
                                         EdmTrajectory{"one_step", "song_ddpmpp_edm"}));

}  // namespace
}  // namespace onestep
