#include "worker/models/adm_unet.h"

#include <gtest/gtest.h>

#include "common/error.h"
#include "common/safetensors_file.h"
#include "worker/models/preconditioners.h"
#include "worker/models/golden_tensors.h"
#include "worker/models/model_factory.h"

namespace onestep {
namespace {

class GoldenTest : public testing::TestWithParam<const char*> {};

// tools/golden/make_adm_unet_golden.py: a PyTorch twin written from the published description. fp32 against fp32 over about
// forty layers: 1e-5 forward, 1e-4 for gradients.
TEST_P(GoldenTest, ForwardAndEveryGradientAgreeWithThePyTorchTwin) {
  const SafetensorsFile golden(std::string(ONESTEP_SOURCE_DIR "/tests/golden/") + GetParam());
  EdmPrecond net(network_spec_from_json(nlohmann::json::parse(golden.metadata().at("config")), GetParam()));
  auto parameters = net.named_parameters();
  {
    torch::NoGradGuard no_grad;
    for (auto& item : parameters) item.value().copy_(tensor_of(golden.at("weights." + item.key())));
  }
  std::size_t golden_weights = 0;
  for (const TensorView& view : golden.tensors()) golden_weights += view.name.starts_with("weights.") ? 1 : 0;
  EXPECT_EQ(golden_weights, parameters.size());

  auto x = tensor_of(golden.at("input.x")).requires_grad_(true);
  const Condition condition{tensor_of(golden.at("input.labels")).argmax(1), {}};
  const auto denoised = net.denoise(x, tensor_of(golden.at("input.sigma")), condition);
  EXPECT_LT(relative_error(denoised, tensor_of(golden.at("output.denoised"))), 1e-5);
  (denoised * tensor_of(golden.at("input.probe"))).sum().backward();
  EXPECT_LT(relative_error(x.grad(), tensor_of(golden.at("grad.x"))), 1e-4);
  for (const auto& item : parameters) {
    EXPECT_LT(relative_error(item.value().grad(), tensor_of(golden.at("grad." + item.key()))), 1e-4) << item.key();
  }
}

INSTANTIATE_TEST_SUITE_P(Networks, GoldenTest,
                         testing::Values("adm_unet_digits.safetensors", "adm_unet_two_levels.safetensors"));

NetworkSpec imagenet64() {
  NetworkSpec spec;
  spec.image_size = 64;
  spec.image_channels = 3;
  spec.pixel_unshuffle = 1;
  spec.model_channels = 192;
  spec.channel_mult = {1, 2, 3, 4};
  spec.channel_mult_emb = 4;
  spec.num_blocks = 3;
  spec.attention_resolutions = {32, 16, 8};
  spec.channels_per_head = 64;
  spec.label_dim = 1000;
  spec.noise_frequencies = "published";
  return spec;
}

TEST(AdmUnet, PublishedImageNet64HasThePublishedParameters) {
  AdmUnet net(imagenet64());
  std::int64_t count = 0;
  for (const auto& parameter : net->parameters()) count += parameter.numel();
  EXPECT_EQ(count, 295'899'267);
  EXPECT_EQ(net->parameters().size(), 541u);
  const auto names = net->named_parameters();
  EXPECT_EQ(names["dec.8x8_block0.conv0.weight"].sizes(), (std::vector<std::int64_t>{768, 1536, 3, 3}));
  EXPECT_TRUE(names.contains("enc.64x64_conv.weight"));
  EXPECT_TRUE(names.contains("dec.8x8_in0.qkv.weight"));
  EXPECT_FALSE(names.contains("dec.8x8_in1.qkv.weight"));
}

TEST(AdmUnet, InitialValuesDependOnSeedAndNameOnly) {
  NetworkSpec spec;
  const auto a = make_denoiser(spec, 1), b = make_denoiser(spec, 1), c = make_denoiser(spec, 2);
  const auto name = "model.map_layer0.weight";
  EXPECT_TRUE(torch::equal(a->module().named_parameters()[name], b->module().named_parameters()[name]));
  EXPECT_FALSE(torch::equal(a->module().named_parameters()[name], c->module().named_parameters()[name]));
}

// A fresh network's last convolution is zero, so D(x; sigma) = c_skip x: EDM Eq. 7.
TEST(EdmPrecond, FreshNetworkIsTheSkip) {
  const auto net = make_denoiser({}, 3);
  const auto x = torch::randn({2, 1, 14, 14});
  const auto y = net->denoise(x, torch::tensor({0.5f, 2.0f}), {torch::tensor({1, 2}), {}});
  EXPECT_TRUE(torch::allclose(y[0], 0.5 * x[0]));
  EXPECT_TRUE(torch::allclose(y[1], 0.25 / 4.25 * x[1]));
}

}  // namespace
}  // namespace onestep
