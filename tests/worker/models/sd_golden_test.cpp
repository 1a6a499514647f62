// Stable Diffusion's networks against diffusers and transformers: tools/golden/make_sd_golden.py.
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>

#include "support/golden.h"
#include "worker/models/autoencoder_kl.h"
#include "worker/models/clip_text.h"
#include "worker/models/sd_unet.h"
#include "worker/models/tiny_autoencoder.h"

namespace onestep {
namespace {

using nlohmann::json;
using Tensors = std::map<std::string, torch::Tensor>;

// fp32 against fp32 over some tens of layers; the sums differ in their order only.
constexpr double kForward = 1e-5, kGradient = 1e-4;

SafetensorsFile golden_file(const std::string& name) {
  return SafetensorsFile(ONESTEP_SOURCE_DIR "/tests/golden/" + name + ".safetensors");
}

json config_of(const SafetensorsFile& golden) { return json::parse(golden.metadata().at("config")); }

// A bias of the keys shifts every score of a row alike: its gradient is zero, and what remains is rounding.
bool has_no_gradient(const std::string& name) { return name.ends_with("k_proj.bias") || name.ends_with("to_k.bias"); }

void expect_keys(const torch::nn::Module& network, const SafetensorsFile& golden) {
  EXPECT_EQ(network.named_parameters().keys(), json::parse(golden.metadata().at("keys")).get<std::vector<std::string>>());
}

// Outputs, then every gradient of sum(output * probe) over all outputs.
void expect_agreement(torch::nn::Module& network, const SafetensorsFile& golden, const Tensors& inputs, const Tensors& outputs) {
  torch::Tensor loss = torch::zeros({});
  for (const auto& [name, output] : outputs) {
    EXPECT_LE(relative_error(output, golden_tensor(golden, "output." + name)), kForward) << name;
    loss = loss + (output * golden_draw("probe." + name, output.sizes())).sum();
  }
  loss.backward();
  for (const auto& [name, input] : inputs) {
    EXPECT_LE(relative_error(input.grad(), golden_tensor(golden, "grad.input." + name)), kGradient) << name;
  }
  for (const auto& item : network.named_parameters()) {
    const auto expected = golden_tensor(golden, "grad." + item.key());
    ASSERT_TRUE(item.value().grad().defined()) << item.key();
    if (has_no_gradient(item.key())) {
      const std::string weight = "grad." + item.key().substr(0, item.key().size() - 4) + "weight";
      EXPECT_LE(item.value().grad().norm().item<double>(), 1e-5 * golden_tensor(golden, weight).norm().item<double>());
    } else {
      EXPECT_LE(relative_error(item.value().grad(), expected), kGradient) << item.key();
    }
  }
}

Tensors leaves(Tensors inputs) {
  for (auto& [name, input] : inputs) input.requires_grad_(true);
  return inputs;
}

struct UnetCase {
  const char* name;
  std::int64_t height, width;
};

class SdUnetGolden : public testing::TestWithParam<UnetCase> {};

TEST_P(SdUnetGolden, ForwardAndEveryGradient) {
  const auto golden = golden_file(GetParam().name);
  const SdUnetConfig config = sd_unet_config_from_json(config_of(golden), golden.path());
  SdUnet network(config);
  fill_golden(*network);
  expect_keys(*network, golden);
  const auto inputs = leaves({{"x", golden_draw("input.x", {3, 4, GetParam().height, GetParam().width})},
                              {"text", golden_draw("input.text", {3, 5, config.cross_attention_dim})}});
  const auto raw = network(inputs.at("x"), torch::tensor({999, 0, 421}), inputs.at("text"));
  expect_agreement(*network, golden, inputs, {{"raw", raw}});
}

// bf16 has 8 bits of mantissa; the recipe prints PyTorch's own distance from fp32 on these networks: 3.2e-2 and 2.3e-2. Twice that.
TEST_P(SdUnetGolden, Bfloat16IsWithinItsBound) {
  const auto golden = golden_file(GetParam().name);
  const SdUnetConfig config = sd_unet_config_from_json(config_of(golden), golden.path());
  SdUnet network(config, torch::kBFloat16);
  fill_golden(*network);
  torch::NoGradGuard no_grad;
  const auto x = golden_draw("input.x", {3, 4, GetParam().height, GetParam().width}).to(torch::kBFloat16);
  const auto text = golden_draw("input.text", {3, 5, config.cross_attention_dim}).to(torch::kBFloat16);
  const auto raw = network(x, torch::tensor({999, 0, 421}), text);
  EXPECT_EQ(raw.scalar_type(), torch::kBFloat16);
  EXPECT_LE(relative_error(raw, golden_tensor(golden, "output.raw")), 6e-2);
}

TEST_P(SdUnetGolden, EqualInputsGiveEqualBits) {
  const auto golden = golden_file(GetParam().name);
  const SdUnetConfig config = sd_unet_config_from_json(config_of(golden), golden.path());
  SdUnet network(config);
  fill_golden(*network);
  torch::NoGradGuard no_grad;
  const auto x = golden_draw("input.x", {3, 4, GetParam().height, GetParam().width});
  const auto text = golden_draw("input.text", {3, 5, config.cross_attention_dim});
  const auto t = torch::tensor({999, 0, 421});
  EXPECT_TRUE(torch::equal(network(x, t, text), network(x, t, text)));
}

INSTANTIATE_TEST_SUITE_P(Networks, SdUnetGolden, testing::Values(UnetCase{"sd_unet_1", 8, 8}, UnetCase{"sd_unet_2", 7, 5}));

TEST(AutoencoderKlGolden, ForwardAndEveryGradient) {
  const auto golden = golden_file("sd_autoencoder_kl");
  AutoencoderKl network(autoencoder_kl_config_from_json(config_of(golden), golden.path()));
  fill_golden(*network);
  expect_keys(*network, golden);
  const auto inputs = leaves({{"images", golden_draw("input.images", {2, 3, 12, 8})},
                              {"noise", golden_draw("input.noise", {2, 4, 6, 4})},
                              {"z", golden_draw("input.z", {2, 4, 6, 4})}});
  const auto posterior = network->encode(inputs.at("images"));
  expect_agreement(*network, golden, inputs,
                   {{"mean", posterior.mean},
                    {"logvar", posterior.logvar},
                    {"sample", posterior.sample(inputs.at("noise"))},
                    {"images", network->decode(inputs.at("z"))}});
}

TEST(TinyAutoencoderGolden, ForwardAndEveryGradient) {
  const auto golden = golden_file("sd_tiny_autoencoder");
  TinyAutoencoder network(tiny_autoencoder_config_from_json(config_of(golden), golden.path()));
  fill_golden(*network);
  expect_keys(*network, golden);
  const auto inputs =
      leaves({{"images", golden_draw("input.images", {2, 3, 12, 8})}, {"z", golden_draw("input.z", {2, 4, 3, 2})}});
  expect_agreement(*network, golden, inputs,
                   {{"latents", network->encode(inputs.at("images"))}, {"images", network->decode(inputs.at("z"))}});
}

class ClipTextGolden : public testing::TestWithParam<const char*> {};

TEST_P(ClipTextGolden, ForwardAndEveryGradient) {
  const auto golden = golden_file(GetParam());
  ClipText network(clip_text_config_from_json(config_of(golden), golden.path()));
  fill_golden(*network);
  expect_keys(*network, golden);
  expect_agreement(*network, golden, {}, {{"hidden", network(golden_tensor(golden, "input.ids"))}});
}

INSTANTIATE_TEST_SUITE_P(Networks, ClipTextGolden, testing::Values("sd_clip_text_quick_gelu", "sd_clip_text_gelu"));

// Names, shapes and their order of the published networks, on the meta device: no memory.
class SdPublished : public testing::Test {
 protected:
  static void expect(const char* name, const torch::nn::Module& network, std::int64_t parameters, std::size_t tensors) {
    const json golden = json::parse(read_file(ONESTEP_SOURCE_DIR "/tests/golden/sd_published.json")).at("networks").at(name);
    EXPECT_EQ(num_parameters(network), parameters) << name;
    EXPECT_EQ(network.parameters().size(), tensors) << name;
    EXPECT_EQ(num_parameters(network), golden.at("parameters").get<std::int64_t>()) << name;
    EXPECT_EQ(key_list_sha256(network), golden.at("keys_sha256").get<std::string>()) << name;
  }
  const torch::TensorOptions meta_ = torch::TensorOptions(torch::kFloat32).device(torch::kMeta);
};

TEST_F(SdPublished, Unets) {
  SdUnetConfig sd15;
  expect("unet_sd15", *SdUnet(sd15, meta_), 859'520'964, 686);
  SdUnetConfig sd21 = sd15;
  sd21.num_heads = {5, 10, 20, 20};
  sd21.cross_attention_dim = 1024;
  sd21.use_linear_projection = true;
  expect("unet_sd21", *SdUnet(sd21, meta_), 865'910'724, 686);
}

TEST_F(SdPublished, Autoencoders) {
  const AutoencoderKl vae(AutoencoderKlConfig{}, meta_);
  expect("vae", *vae, 83'653'863, 248);
  EXPECT_EQ(num_parameters(*vae->named_children()["encoder"]), 34'163'592);
  EXPECT_EQ(num_parameters(*vae->named_children()["decoder"]), 49'490'179);
  const TinyAutoencoder taesd(TinyAutoencoderConfig{}, meta_);
  EXPECT_EQ(num_parameters(*taesd->named_children()["encoder"]), 1'222'532);
  EXPECT_EQ(num_parameters(*taesd->named_children()["decoder"]), 1'222'531);
  expect("taesd", *taesd, 2'445'063, taesd->parameters().size());
}

TEST_F(SdPublished, TextEncoders) {
  ClipTextConfig clip_l;
  expect("clip_l", *ClipText(clip_l, meta_), 123'060'480, 196);
  ClipTextConfig clip_h;
  clip_h.hidden_size = 1024;
  clip_h.intermediate_size = 4096;
  clip_h.num_hidden_layers = 23;
  clip_h.num_attention_heads = 16;
  expect("clip_h", *ClipText(clip_h, meta_), 340'387'840, clip_h.num_hidden_layers * 16 + 4);
}

}  // namespace
}  // namespace onestep
