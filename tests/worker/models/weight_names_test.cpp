#include "worker/models/weight_names.h"

#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "common/durable_file.h"
#include "worker/models/autoencoder_kl.h"
#include "worker/models/sd_unet.h"

namespace onestep {
namespace {

using nlohmann::json;

TensorView named(const std::string& name, std::vector<std::int64_t> shape = {1}) { return {name, DType::kF32, std::move(shape), {}}; }

std::set<std::string> keys_of(const torch::nn::Module& network) {
  const auto keys = network.named_parameters().keys();
  return {keys.begin(), keys.end()};
}

// tools/golden/make_ldm_names_golden.py: what diffusers' own converters make of each name.
TEST(WeightNames, LdmFilesOfStableDiffusion1BecomeDiffusers) {
  const json golden = json::parse(read_file(ONESTEP_SOURCE_DIR "/tests/golden/ldm_names.json"));
  const torch::TensorOptions meta = torch::TensorOptions(torch::kFloat32).device(torch::kMeta);
  for (const bool unet : {true, false}) {
    std::set<std::string> found;
    for (const auto& [theirs, ours] : golden.at(unet ? "unet" : "vae").items()) {
      const LdmParts parts = split_ldm({named(theirs)}, {}, {});
      const auto& part = unet ? parts.unet : parts.vae;
      ASSERT_EQ(part.size(), 1u) << theirs;
      EXPECT_EQ(part[0].name, ours.get<std::string>()) << theirs;
      found.insert(part[0].name);
    }
    EXPECT_EQ(found, unet ? keys_of(*SdUnet(SdUnetConfig{}, meta)) : keys_of(*AutoencoderKl(AutoencoderKlConfig{}, meta)));
  }
}

TEST(WeightNames, LdmAttentionOfTheAutoencoderLosesItsPixels) {
  const auto parts = split_ldm({named("first_stage_model.encoder.mid.attn_1.q.weight", {512, 512, 1, 1}),
                                named("first_stage_model.quant_conv.weight", {8, 8, 1, 1}),
                                named("model.diffusion_model.input_blocks.1.1.proj_in.weight", {320, 320, 1, 1})},
                               {}, {});
  EXPECT_EQ(parts.vae[0].name, "encoder.mid_block.attentions.0.to_q.weight");
  EXPECT_EQ(parts.vae[0].shape, (std::vector<std::int64_t>{512, 512}));
  EXPECT_EQ(parts.vae[1].shape.size(), 4u);
  EXPECT_EQ(parts.unet[0].name, "down_blocks.0.attentions.0.proj_in.weight");
  EXPECT_EQ(parts.unet[0].shape.size(), 4u);
}

TEST(WeightNames, LdmLeftoversAreDroppedAndStrangersNamed) {
  const auto parts = split_ldm({named("betas"), named("model_ema.decay"), named("control_model.x"),
                                named("cond_stage_model.transformer.text_model.final_layer_norm.weight"),
                                named("cond_stage_model.transformer.text_model.embeddings.position_ids")},
                               {}, {});
  EXPECT_EQ(parts.unknown, std::vector<std::string>{"control_model.x"});
  ASSERT_EQ(parts.text.size(), 1u);
  EXPECT_EQ(parts.text[0].name, "text_model.final_layer_norm.weight");
}

TEST(WeightNames, TextEncoderWithAndWithoutPrefix) {
  const auto names = clip_text_names({named("encoder.layers.0.mlp.fc1.bias"), named("text_model.final_layer_norm.bias"),
                                      named("embeddings.position_ids"), named("text_model.embeddings.position_ids")});
  ASSERT_EQ(names.size(), 2u);
  EXPECT_EQ(names[0].name, "text_model.encoder.layers.0.mlp.fc1.bias");
  EXPECT_EQ(names[1].name, "text_model.final_layer_norm.bias");
}

}  // namespace
}  // namespace onestep
