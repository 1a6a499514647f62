#include "worker/models/sd_denoiser.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "support/files.h"
#include "support/golden.h"

namespace onestep {
namespace {

using nlohmann::json;

SdUnetConfig small_unet() {
  SdUnetConfig config;
  config.sample_size = 4;
  config.block_out_channels = {8, 8};
  config.num_heads = {2, 2};
  config.down_attention = {true, false};
  config.up_attention = {false, true};
  config.layers_per_block = 1;
  config.cross_attention_dim = 8;
  config.norm_num_groups = 4;
  return config;
}

Condition some_text() { return {{}, golden_draw("input.text", {2, 3, 8})}; }

TEST(SdDenoiser, RecomputingChangesNoBit) {
  const auto x = golden_draw("input.x", {2, 4, 4, 4}), probe = golden_draw("probe", {2, 4, 4, 4});
  const auto t = torch::tensor({999.0f, 99.0f});
  std::vector<std::unique_ptr<SdDenoiser>> denoisers;
  for (const bool recompute : {false, true}) {
    auto& denoiser = denoisers.emplace_back(std::make_unique<SdDenoiser>(small_unet(), SdScheduleConfig{}));
    fill_golden(denoiser->module());
    denoiser->recompute_in_backward(recompute);
    // Twice: the second gradient is added to the first, as micro-batches are.
    for (int pass = 0; pass < 2; ++pass) (denoiser->denoise(x, t, some_text()) * probe).sum().backward();
  }
  const auto plain = denoisers[0]->module().named_parameters();
  for (const auto& item : denoisers[1]->module().named_parameters()) {
    ASSERT_TRUE(item.value().grad().defined()) << item.key();
    EXPECT_TRUE(torch::equal(plain[item.key()].grad(), item.value().grad())) << item.key();
  }
}

// x0 by the formulas themselves, in fp64 from the network's own output.
TEST(SdDenoiser, ConvertsEpsilonAndVToX0) {
  for (const Prediction prediction : {Prediction::kEpsilon, Prediction::kV}) {
    SdScheduleConfig schedule;
    schedule.prediction = prediction;
    SdDenoiser denoiser(small_unet(), schedule);
    fill_golden(denoiser.module());
    torch::NoGradGuard no_grad;
    const auto x = golden_draw("input.x", {2, 4, 4, 4});
    const auto t = torch::tensor({999.0f, 499.0f});
    const auto raw = denoiser.unet()(x, t, some_text().text).to(torch::kFloat64);
    // models.md: alpha-bar of Stable Diffusion at 999 and 499.
    const auto alpha_bar = torch::tensor({0.0046601, 0.27766965}, torch::kFloat64).view({2, 1, 1, 1});
    const auto a = alpha_bar.sqrt(), s = (1 - alpha_bar).sqrt();
    const auto x0 = prediction == Prediction::kEpsilon ? (x - s * raw) / a : a * x - s * raw;
    // The two alpha-bars above have five digits or more.
    EXPECT_LE(relative_error(denoiser.denoise(x, t, some_text()), x0), 1e-5);
  }
}

TEST(SdDenoiser, OneStepIsTheLastStep) {
  SdDenoiser denoiser(small_unet(), {});
  fill_golden(denoiser.module());
  torch::NoGradGuard no_grad;
  const auto noise = golden_draw("input.x", {2, 4, 4, 4});
  EXPECT_TRUE(torch::equal(denoiser.one_step(noise, some_text()), denoiser.denoise(noise, torch::full({2}, 999.0f), some_text())));
}

TEST(SdDenoiser, IsADenoiser) {
  SdDenoiser denoiser(small_unet(), {});
  EXPECT_EQ(denoiser.image_shape().channels, 4);
  EXPECT_EQ(denoiser.image_shape().height, 4);
  EXPECT_EQ(denoiser.num_classes(), 0);
  EXPECT_EQ(denoiser.prediction(), Prediction::kEpsilon);
  EXPECT_TRUE(denoiser.module().named_parameters().contains("down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"));
  const auto last = denoiser.schedule().alpha(torch::tensor({999.0f})).item<double>();
  EXPECT_NEAR(last * last, 0.0046601, 1e-7);  // models.md
}

TEST(SdDenoiser, Bfloat16NetworkTakesAndGivesFp32) {
  SdDenoiser denoiser(small_unet(), {}, torch::kBFloat16), exact(small_unet(), {});
  fill_golden(denoiser.module());
  fill_golden(exact.module());
  torch::NoGradGuard no_grad;
  const auto x = golden_draw("input.x", {2, 4, 4, 4});
  const auto t = torch::tensor({100.0f, 20.0f});
  const auto x0 = denoiser.denoise(x, t, some_text());
  EXPECT_EQ(x0.scalar_type(), torch::kFloat32);
  EXPECT_LE(relative_error(x0, exact.denoise(x, t, some_text())), 3e-2);  // 6e-2 of epsilon, of which sigma / alpha <= 0.4 gets into x0
}

TEST(SdDenoiser, RefusesOtherText) {
  SdDenoiser denoiser(small_unet(), {});
  const auto x = torch::zeros({2, 4, 4, 4}), t = torch::zeros({2});
  for (const Condition& condition : {Condition{}, Condition{{}, torch::zeros({1, 3, 8})}, Condition{{}, torch::zeros({2, 3, 9})}}) {
    const auto error = error_of([&] { denoiser.denoise(x, t, condition); });
    ASSERT_TRUE(error);
    EXPECT_EQ(error->code, ErrorCode::kMismatch);
  }
}

TEST(SdScheduleConfig, ReadsPublishedFiles) {
  const json sd15 = json::parse(R"({"_class_name": "PNDMScheduler", "_diffusers_version": "0.6.0", "beta_end": 0.012,
      "beta_schedule": "scaled_linear", "beta_start": 0.00085, "num_train_timesteps": 1000, "set_alpha_to_one": false,
      "skip_prk_steps": true, "steps_offset": 1, "trained_betas": null, "clip_sample": false})");
  EXPECT_EQ(sd_schedule_config_from_json(sd15, "scheduler").prediction, Prediction::kEpsilon);
  json sd21 = sd15;
  sd21["prediction_type"] = "v_prediction";
  EXPECT_EQ(sd_schedule_config_from_json(sd21, "scheduler").prediction, Prediction::kV);
  json other = sd15;
  other["rescale_betas_zero_snr"] = true;
  EXPECT_TRUE(error_of([&] { sd_schedule_config_from_json(other, "scheduler"); }));
}

// The file that Stable Diffusion 1.5 was published with, and one that a current diffusers writes, name the same network.
TEST(SdUnetConfig, RoundTrips) {
  const json published = json::parse(R"({"_class_name": "UNet2DConditionModel", "_diffusers_version": "0.6.0", "act_fn": "silu",
      "attention_head_dim": 8, "block_out_channels": [320, 640, 1280, 1280], "center_input_sample": false, "cross_attention_dim": 768,
      "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
      "downsample_padding": 1, "flip_sin_to_cos": true, "freq_shift": 0, "in_channels": 4, "layers_per_block": 2,
      "mid_block_scale_factor": 1, "norm_eps": 1e-05, "norm_num_groups": 32, "out_channels": 4, "sample_size": 64,
      "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"]})");
  const SdUnetConfig config = sd_unet_config_from_json(published, "unet/config.json");
  json written = to_diffusers_json(config);
  for (const auto& [key, value] : published.items()) {
    if (key == "_diffusers_version") continue;
    EXPECT_EQ(written[key], value) << key;
  }
  EXPECT_EQ(to_diffusers_json(sd_unet_config_from_json(written, "unet/config.json")), written);
  written["attention_head_dim"] = {5, 10, 20, 20};
  EXPECT_EQ(sd_unet_config_from_json(written, "unet/config.json").num_heads, (std::vector<std::int64_t>{5, 10, 20, 20}));
}

TEST(SdUnetConfig, ListsEverythingThatIsWrong) {
  const json document = {{"_class_name", "UNet2DModel"}, {"attention_head_dim", {8, 8}}, {"cross_attention_dim", 768},
                         {"addition_embed_type", "text_time"}, {"transformer_layers_per_block", {1, 2, 10}}, {"unheard_of", 1}};
  const auto error = error_of([&] { sd_unet_config_from_json(document, "x/config.json"); });
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code, ErrorCode::kConfig);
  for (const char* part : {"x/config.json", "/_class_name", "/sample_size", "/addition_embed_type", "\"text_time\"",
                           "/transformer_layers_per_block", "/unheard_of", "/attention_head_dim", "expected 4 entries"}) {
    EXPECT_NE(error->message.find(part), std::string::npos) << part << " in " << error->message;
  }
}

}  // namespace
}  // namespace onestep
