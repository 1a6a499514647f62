// A Stable Diffusion of a few thousand weights with keyed initial values: the whole layout, in milliseconds.
#pragma once

#include <string>

#include "support/short_tokenizer.h"
#include "worker/models/raw_layers.h"
#include "worker/run/diffusers_export.h"
#include "worker/run/diffusers_folder.h"

namespace onestep {

inline constexpr std::size_t kTinyMerges = 300;  // of CLIP's

inline std::unique_ptr<BpeTokenizer> tiny_tokenizer() { return short_tokenizer(kTinyMerges); }

inline SdUnetConfig tiny_unet_config() {
  SdUnetConfig config;
  config.sample_size = 8;
  config.block_out_channels = {16, 32};
  config.num_heads = {2, 2};
  config.down_attention = {true, false};
  config.up_attention = {false, true};
  config.layers_per_block = 1;
  config.cross_attention_dim = 16;
  config.norm_num_groups = 8;
  return config;
}

inline AutoencoderKlConfig tiny_vae_config() {
  AutoencoderKlConfig config;
  config.sample_size = 16;
  config.block_out_channels = {8, 16};
  config.layers_per_block = 1;
  config.norm_num_groups = 4;
  return config;
}

inline ClipTextConfig tiny_clip_config() {
  ClipTextConfig config;
  config.vocab_size = 512 + kTinyMerges + 2;
  config.hidden_size = config.projection_dim = 16;
  config.intermediate_size = 32;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 2;
  return config;
}

inline SdPipeline tiny_sd(std::uint64_t seed, Prediction prediction = Prediction::kEpsilon) {
  SdPipeline pipeline;
  SdScheduleConfig schedule;
  schedule.prediction = prediction;
  pipeline.denoiser = std::make_unique<SdDenoiser>(tiny_unet_config(), schedule);
  pipeline.vae = AutoencoderKl(tiny_vae_config());
  pipeline.text_encoder = ClipText(tiny_clip_config());
  pipeline.tokenizer = tiny_tokenizer();
  initialize_raw_layers(pipeline.denoiser->module(), seed, "unet.");
  initialize_raw_layers(*pipeline.vae, seed, "vae.");
  initialize_raw_layers(*pipeline.text_encoder, seed, "text_encoder.");
  return pipeline;
}

// What make_tiny_sd exports of tiny_sd(1), and tools/golden/make_diffusers_golden.py loads.
inline SdExportOptions tiny_export_options() {
  SdExportOptions options;
  options.card = {"none: random weights", "none", "none", 0, 0};
  options.sample_prompts = {"a photo of a cat", "it's 2024, isn't it?!", ""};
  return options;
}

}  // namespace onestep
