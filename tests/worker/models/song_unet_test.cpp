#include "worker/models/song_unet.h"

#include <gtest/gtest.h>

#include <memory>

#include "common/safetensors_file.h"
#include "support/temp_folder.h"
#include "worker/models/edm_parity.h"
#include "worker/models/golden_tensors.h"
#include "worker/models/model_factory.h"
#include "worker/models/preconditioners.h"
#include "worker/tensors/flat_parameters.h"

namespace onestep {
namespace {

constexpr const char* kUnused = "model.map_augment.weight";  // no gradient reaches it without augmentation labels

NetworkSpec spec_of(const SafetensorsFile& golden) {
  return network_spec_from_json(nlohmann::json::parse(golden.metadata().at("config")), golden.path());
}

Condition condition_of(const SafetensorsFile& golden) {
  if (golden.find("input.labels") == nullptr) return {};
  return {tensor_of(golden.at("input.labels")).argmax(1), {}};
}

// Every parameter and buffer of the file; no other may be there, none may be missing.
void load_weights(torch::nn::Module& module, const SafetensorsFile& golden) {
  torch::NoGradGuard no_grad;
  std::size_t loaded = 0;
  for (auto& item : module.named_parameters()) {
    item.value().copy_(tensor_of(golden.at("weights." + item.key())));
    ++loaded;
  }
  for (auto& item : module.named_buffers()) {
    const auto value = tensor_of(golden.at("weights." + item.key()));
    // Constants agree already, with what the reference computes; the frequencies are random.
    if (!item.key().ends_with("freqs")) {
      EXPECT_TRUE(torch::allclose(item.value(), value, 1e-6, 0)) << item.key();
    }
    item.value().copy_(value);
    ++loaded;
  }
  std::size_t wanted = 0;
  for (const TensorView& view : golden.tensors()) wanted += view.name.starts_with("weights.") ? 1 : 0;
  EXPECT_EQ(wanted, loaded);
}

class SongGoldenTest : public testing::TestWithParam<const char*> {};

// The network's row, and one of the preconditioner around it, by whose coefficients every value has gone.
std::vector<ParityCase> rows_of(const SafetensorsFile& golden, const std::string& dtype) {
  const NetworkSpec spec = spec_of(golden);
  const std::string inputs = inputs_of(spec, 3, dtype);
  std::vector<ParityCase> rows = {{edm_component(spec), twin_of(golden), inputs, kRelativeNorm}};
  if (dtype == "fp32") {
    rows.push_back({preconditioner_component(spec), twin_of(golden), "D of " + edm_component(spec) + ", " + inputs, kRelativeNorm});
  }
  return rows;
}

// tools/golden/make_edm_golden.py: a PyTorch twin written from the published description.
TEST_P(SongGoldenTest, ForwardAndEveryGradientAgreeWithThePyTorchTwin) {
  const SafetensorsFile golden(golden_path(GetParam()));
  const auto net = make_denoiser(spec_of(golden), 0);
  load_weights(net->module(), golden);
  auto x = tensor_of(golden.at("input.x")).requires_grad_(true);
  const auto denoised = net->denoise(x, tensor_of(golden.at("input.sigma")), condition_of(golden));
  (denoised * tensor_of(golden.at("input.probe"))).sum().backward();
  for (const ParityCase& row : rows_of(golden, "fp32")) {
    ParityRow parity(row);
    parity.forward(relative_error(denoised, tensor_of(golden.at("output.denoised"))), kForwardBound);
    parity.backward(relative_error(x.grad(), tensor_of(golden.at("grad.x"))), kGradientBound, "x");
    for (const auto& item : net->module().named_parameters()) {
      if (item.key() == kUnused) continue;
      parity.backward(relative_error(item.value().grad(), tensor_of(golden.at("grad." + item.key()))), kGradientBound, item.key());
    }
  }
}

TEST_P(SongGoldenTest, Bf16IsWithinItsBound) {
  const SafetensorsFile golden(golden_path(GetParam()));
  const auto net = make_denoiser(spec_of(golden), 0);
  load_weights(net->module(), golden);
  dynamic_cast<Preconditioner&>(*net).cast_weights(torch::kBFloat16);
  ParityRow parity(rows_of(golden, "bf16").front());
  auto x = tensor_of(golden.at("input.x")).requires_grad_(true);
  const auto denoised = net->denoise(x, tensor_of(golden.at("input.sigma")), condition_of(golden));
  EXPECT_EQ(denoised.scalar_type(), torch::kFloat32);
  const double error = relative_error(denoised.detach(), tensor_of(golden.at("output.denoised")));
  EXPECT_GT(error, 1e-5);  // it was bf16
  parity.forward(error, kBf16ForwardBound);
  (denoised * tensor_of(golden.at("input.probe"))).sum().backward();
  GradientDistance distance;
  distance.add(x.grad(), tensor_of(golden.at("grad.x")));
  for (const auto& item : net->module().named_parameters()) {
    if (item.key() != kUnused) distance.add(item.value().grad(), tensor_of(golden.at("grad." + item.key())));
  }
  parity.backward(distance.value(), kBf16GradientBound);
}

// Every gradient, bit for bit, and less kept between the passes.
TEST_P(SongGoldenTest, RecomputingActivationsChangesNoBit) {
  const SafetensorsFile golden(golden_path(GetParam()));
  std::vector<std::unique_ptr<Denoiser>> nets;
  std::vector<torch::Tensor> inputs;
  for (const bool recompute : {false, true}) {
    auto& net = nets.emplace_back(make_denoiser(spec_of(golden), 0));
    load_weights(net->module(), golden);
    net->recompute_in_backward(recompute);
    auto x = inputs.emplace_back(tensor_of(golden.at("input.x")).requires_grad_(true));
    const auto denoised = net->denoise(x, tensor_of(golden.at("input.sigma")), condition_of(golden));
    (denoised * tensor_of(golden.at("input.probe"))).sum().backward();
  }
  EXPECT_TRUE(torch::equal(inputs[0].grad(), inputs[1].grad()));
  const auto plain = nets[0]->module().named_parameters();
  for (const auto& item : nets[1]->module().named_parameters()) {
    if (item.key() == kUnused) continue;
    EXPECT_TRUE(torch::equal(plain[item.key()].grad(), item.value().grad())) << item.key();
  }
}

INSTANTIATE_TEST_SUITE_P(Networks, SongGoldenTest,
                         testing::Values("song_ddpmpp_edm.safetensors", "song_ncsnpp_edm.safetensors",
                                         "song_ddpmpp_vp.safetensors", "song_ncsnpp_ve.safetensors",
                                         "song_ddpmpp_iddpm.safetensors"));

// The levels of the cosine schedule, computed in fp64 and rounded once on both sides: the last bit of fp32.
TEST(SongUnet, IddpmLevelsAreTheTwins) {
  const SafetensorsFile golden(golden_path("song_ddpmpp_iddpm.safetensors"));
  const auto expected = tensor_of(golden.at("weights.u")).narrow(0, 0, 1000).to(torch::kFloat64);
  const auto found = make_denoiser(spec_of(golden), 0)->module().named_buffers()["u"].narrow(0, 0, 1000).to(torch::kFloat64);
  ParityRow row({"noise table of iDDPM", twin_of(golden), "1,000 levels, fp32", "max abs(a / b - 1)", "none: a table"});
  row.forward((found / expected - 1).abs().max().item<double>(), std::pow(2.0, -23));
}

// Written and read back strictly, buffers and the unused tensor included.
TEST(SongUnet, GoesThroughAFileUnchanged) {
  const SafetensorsFile golden(golden_path("song_ncsnpp_ve.safetensors"));
  const auto net = make_denoiser(spec_of(golden), 1), other = make_denoiser(spec_of(golden), 2);
  const TempFolder folder;
  write_safetensors(folder / "model.safetensors", named_tensors(net->module()), {});
  const SafetensorsFile file(folder / "model.safetensors");
  EXPECT_NE(file.find("model.map_augment.weight"), nullptr);
  EXPECT_NE(file.find("model.map_noise.freqs"), nullptr);
  EXPECT_NE(file.find("model.enc.4x4_aux_residual.resample_filter"), nullptr);
  const auto before = net->module().named_buffers()["model.map_noise.freqs"];
  EXPECT_FALSE(torch::equal(before, other->module().named_buffers()["model.map_noise.freqs"]));
  load_parameters(other->module(), file);
  for (const auto& item : net->module().named_parameters()) {
    EXPECT_TRUE(torch::equal(item.value(), other->module().named_parameters()[item.key()])) << item.key();
  }
  EXPECT_TRUE(torch::equal(before, other->module().named_buffers()["model.map_noise.freqs"]));
}

// Bounds of Xavier's uniform initialisation and its exceptions.
TEST(SongUnet, InitialValuesAreThePublishedOnes) {
  NetworkSpec spec;
  spec.network_class = "song_unet";
  spec.image_size = 8;
  spec.pixel_unshuffle = 1;
  spec.model_channels = 32;
  spec.augment_dim = 9;
  spec.embedding_type = "fourier";
  spec.channel_mult_noise = 8;
  const auto net = make_denoiser(spec, 5);
  const auto parameters = net->module().named_parameters();
  const auto bound_of = [&](const char* name) { return parameters[name].abs().max().item<double>(); };
  const double conv = std::sqrt(6.0 / (9 * 64));
  EXPECT_NEAR(bound_of("model.enc.8x8_block0.conv0.weight"), conv, 0.01 * conv);
  EXPECT_NEAR(bound_of("model.enc.8x8_block0.conv1.weight"), 1e-5 * conv, 1e-7 * conv);
  const double qkv = std::sqrt(0.2 * 6.0 / (32 + 96));
  EXPECT_NEAR(bound_of("model.dec.8x8_in0.qkv.weight"), qkv, 0.01 * qkv);
  EXPECT_EQ(bound_of("model.dec.8x8_in0.qkv.bias"), 0);
  EXPECT_EQ(parameters["model.dec.8x8_aux_norm.weight"].min().item<double>(), 1);
  EXPECT_NEAR(net->module().named_buffers()["model.map_noise.freqs"].std().item<double>(), 16, 3);  // of 128 draws
}

}  // namespace
}  // namespace onestep
