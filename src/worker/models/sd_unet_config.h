// The options of Stable Diffusion's U-Net, as unet/config.json of a diffusers folder holds them.
#pragma once

#include <nlohmann/json.hpp>

#include <cstdint>
#include <string>
#include <vector>

namespace onestep {

// The defaults are those of Stable Diffusion 1.5.
struct SdUnetConfig {
  std::int64_t sample_size = 64;  // height and width of the latents it was trained on
  std::int64_t in_channels = 4, out_channels = 4;
  std::vector<std::int64_t> block_out_channels = {320, 640, 1280, 1280};  // a level each, multiples of norm_num_groups
  std::vector<std::int64_t> num_heads = {8, 8, 8, 8};  // a level each; diffusers calls it attention_head_dim
  std::vector<bool> down_attention = {true, true, true, false};  // CrossAttnDownBlock2D or DownBlock2D
  std::vector<bool> up_attention = {false, true, true, true};    // from the smallest level up
  std::int64_t layers_per_block = 2;
  std::int64_t cross_attention_dim = 768;
  std::int64_t norm_num_groups = 32;
  double norm_eps = 1e-5;
  bool use_linear_projection = false;  // SD2: proj_in and proj_out are [C,C]
  bool upcast_attention = false;       // kept for export; attention's sums are fp32 here in any case
};

// Strict: an unknown key, or a value that makes another network, is refused. Errors: ConfigError naming `where`, each key, expected, found.
SdUnetConfig sd_unet_config_from_json(const nlohmann::json& document, const std::string& where);
// The document that diffusers reads, with _class_name.
nlohmann::json to_diffusers_json(const SdUnetConfig& config);

}  // namespace onestep
