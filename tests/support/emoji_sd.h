// The Stable Diffusion of configs/sd15/tiny: its options, and a text encoder of keyed random weights that is never trained.
#pragma once

#include "support/short_tokenizer.h"
#include "worker/models/raw_layers.h"
#include "worker/run/diffusers_folder.h"

namespace onestep {

inline constexpr std::size_t kEmojiMerges = 1000;  // of CLIP's
inline constexpr std::int64_t kEmojiTokens = 16;   // of a prompt, the two ends included
inline constexpr std::uint64_t kEmojiTextSeed = 1;

inline SdUnetConfig emoji_unet_config() {
  SdUnetConfig config;
  config.sample_size = 8;
  config.block_out_channels = {32, 64};
  config.num_heads = {4, 4};
  config.down_attention = {true, true};
  config.up_attention = {true, true};
  config.layers_per_block = 1;
  config.cross_attention_dim = 32;
  config.norm_num_groups = 8;
  return config;
}

inline AutoencoderKlConfig emoji_vae_config() {
  AutoencoderKlConfig config;
  config.sample_size = 64;
  config.block_out_channels = {8, 16, 32, 32};
  config.layers_per_block = 1;
  config.norm_num_groups = 4;
  return config;
}

inline ClipTextConfig emoji_clip_config() {
  ClipTextConfig config;
  config.vocab_size = 512 + kEmojiMerges + 2;
  config.max_position_embeddings = kEmojiTokens;
  config.hidden_size = config.projection_dim = 32;
  config.intermediate_size = 64;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 4;
  return config;
}

inline std::unique_ptr<BpeTokenizer> emoji_tokenizer() {
  BpeTokenizerOptions options;
  options.max_length = kEmojiTokens;
  return short_tokenizer(kEmojiMerges, options);
}

// All but the U-Net's weights; `vae`: a trained autoencoder, or null for options alone.
inline SdPipeline emoji_base(AutoencoderKl vae) {
  SdPipeline pipeline;
  pipeline.denoiser = std::make_unique<SdDenoiser>(emoji_unet_config(), SdScheduleConfig{});
  initialize_raw_layers(pipeline.denoiser->module(), 0, "unet.");
  if (vae.is_empty()) {
    vae = AutoencoderKl(emoji_vae_config());
    initialize_raw_layers(*vae, 0, "vae.");
  }
  pipeline.vae = vae;
  pipeline.text_encoder = ClipText(emoji_clip_config());
  initialize_raw_layers(*pipeline.text_encoder, kEmojiTextSeed, "text_encoder.");
  pipeline.tokenizer = emoji_tokenizer();
  return pipeline;
}

}  // namespace onestep
