#include "worker/models/adm_unet.h"

#include <gtest/gtest.h>

#include "common/error.h"
#include "common/safetensors_file.h"
#include "worker/models/edm_parity.h"
#include "worker/models/golden_tensors.h"
#include "worker/models/model_factory.h"
#include "worker/models/preconditioners.h"

namespace onestep {
namespace {

class GoldenTest : public testing::TestWithParam<const char*> {
 protected:
  const SafetensorsFile golden_{std::string(ONESTEP_SOURCE_DIR "/tests/golden/") + GetParam()};
  const NetworkSpec spec_ = network_spec_from_json(nlohmann::json::parse(golden_.metadata().at("config")), GetParam());
  ParityCase row(const std::string& dtype) { return {edm_component(spec_), twin_of(golden_), inputs_of(spec_, 3, dtype), kRelativeNorm}; }
  torch::Tensor golden(const std::string& name) { return tensor_of(golden_.at(name)); }
  torch::Tensor denoise(EdmPrecond& net, const torch::Tensor& x) {
    return net.denoise(x, golden("input.sigma"), {golden("input.labels").argmax(1), {}});
  }
  void load(EdmPrecond& net) {
    torch::NoGradGuard no_grad;
    for (auto& item : net.named_parameters()) item.value().copy_(golden("weights." + item.key()));
  }
};

// tools/golden/make_adm_unet_golden.py: a PyTorch twin written from the published description.
TEST_P(GoldenTest, ForwardAndEveryGradientAgreeWithThePyTorchTwin) {
  EdmPrecond net(spec_);
  load(net);
  std::size_t golden_weights = 0;
  for (const TensorView& view : golden_.tensors()) golden_weights += view.name.starts_with("weights.") ? 1 : 0;
  EXPECT_EQ(golden_weights, net.named_parameters().size());

  ParityRow parity(row("fp32"));
  auto x = golden("input.x").requires_grad_(true);
  const auto denoised = denoise(net, x);
  parity.forward(relative_error(denoised, golden("output.denoised")), kForwardBound);
  (denoised * golden("input.probe")).sum().backward();
  parity.backward(relative_error(x.grad(), golden("grad.x")), kGradientBound, "x");
  for (const auto& item : net.named_parameters()) {
    parity.backward(relative_error(item.value().grad(), golden("grad." + item.key())), kGradientBound, item.key());
  }
}

TEST_P(GoldenTest, Bf16IsWithinItsBound) {
  EdmPrecond net(spec_);
  load(net);
  net.cast_weights(torch::kBFloat16);
  ParityRow parity(row("bf16"));
  auto x = golden("input.x").requires_grad_(true);
  const auto denoised = denoise(net, x);
  EXPECT_EQ(denoised.scalar_type(), torch::kFloat32);
  const double error = relative_error(denoised.detach(), golden("output.denoised"));
  EXPECT_GT(error, 1e-5);  // it was bf16
  parity.forward(error, kBf16ForwardBound);
  (denoised * golden("input.probe")).sum().backward();
  GradientDistance distance;
  distance.add(x.grad(), golden("grad.x"));
  for (const auto& item : net.named_parameters()) distance.add(item.value().grad(), golden("grad." + item.key()));
  parity.backward(distance.value(), kBf16GradientBound);
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
