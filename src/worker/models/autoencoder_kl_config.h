// The options of Stable Diffusion's autoencoder, as vae/config.json of a diffusers folder holds them.
#pragma once

#include <nlohmann/json.hpp>

#include <cstdint>
#include <string>
#include <vector>

namespace onestep {

// The defaults are those of Stable Diffusion 1.5.
struct AutoencoderKlConfig {
  std::int64_t sample_size = 512;  // height and width of the images it was trained on
  std::int64_t in_channels = 3, out_channels = 3, latent_channels = 4;
  std::vector<std::int64_t> block_out_channels = {128, 256, 512, 512};  // multiples of norm_num_groups
  std::int64_t layers_per_block = 2;
  std::int64_t norm_num_groups = 32;
  double scaling_factor = 0.18215;  // latents of the diffusion model = scaling_factor * sample of the posterior
};

// Strict, as sd_unet_config_from_json(). Errors: ConfigError.
AutoencoderKlConfig autoencoder_kl_config_from_json(const nlohmann::json& document, const std::string& where);
nlohmann::json to_diffusers_json(const AutoencoderKlConfig& config);

}  // namespace onestep
