#include "worker/models/autoencoder_kl_config.h"

#include "worker/models/diffusers_config.h"

namespace onestep {
namespace {

using nlohmann::json;

constexpr std::int64_t kMaxKlSize = 1 << 20;

const std::vector<FixedKey> kFixedKlKeys = {
    {"_class_name", R"(["AutoencoderKL"])"},
    {"act_fn", R"(["silu"])"},
    {"latents_mean", "[null]"},
    {"latents_std", "[null]"},
    {"mid_block_add_attention", "[true]"},
    {"shift_factor", "[null]"},
    {"use_post_quant_conv", "[true]"},
    {"use_quant_conv", "[true]"},
};

// As many blocks as levels, all of one type.
void check_types(ConfigReader& reader, const char* key, const std::string& type, std::size_t levels) {
  const std::vector<std::string> found = reader.texts(key, {});
  if (found == std::vector<std::string>(levels, type)) return;
  reader.violation(key, "expected " + std::to_string(levels) + " times " + type + ", found " + json(found).dump());
}

}  // namespace

AutoencoderKlConfig autoencoder_kl_config_from_json(const json& document, const std::string& where) {
  ConfigReader reader(document, "");
  AutoencoderKlConfig config;
  if (document.is_object()) {
    check_fixed_keys(reader, document, kFixedKlKeys);
    know_harmless_keys(reader, document, {"force_upcast"});  // whether a pipeline in fp16 decodes in fp32
    require_keys(reader, {"_class_name", "block_out_channels", "layers_per_block"});
  }
  config.sample_size = reader.integer("sample_size", config.sample_size, 1, kMaxKlSize);
  config.in_channels = reader.integer("in_channels", config.in_channels, 1, kMaxKlSize);
  config.out_channels = reader.integer("out_channels", config.out_channels, 1, kMaxKlSize);
  config.latent_channels = reader.integer("latent_channels", config.latent_channels, 1, kMaxKlSize);
  config.block_out_channels = reader.integers("block_out_channels", config.block_out_channels, 1, kMaxKlSize);
  config.layers_per_block = reader.integer("layers_per_block", config.layers_per_block, 1, 64);
  config.norm_num_groups = reader.integer("norm_num_groups", config.norm_num_groups, 1, kMaxKlSize);
  config.scaling_factor = reader.number("scaling_factor", config.scaling_factor, 1e-6, 1e6);
  if (config.block_out_channels.empty()) reader.violation("block_out_channels", "expected one level or more, found none");
  for (const std::int64_t channels : config.block_out_channels) {
    if (channels % config.norm_num_groups != 0) {
      reader.violation("block_out_channels", "expected multiples of norm_num_groups (" +
                                                 std::to_string(config.norm_num_groups) + "), found " +
                                                 std::to_string(channels));
    }
  }
  check_types(reader, "down_block_types", "DownEncoderBlock2D", config.block_out_channels.size());
  check_types(reader, "up_block_types", "UpDecoderBlock2D", config.block_out_channels.size());
  reader.finish(where);
  return config;
}

json to_diffusers_json(const AutoencoderKlConfig& config) {
  const std::size_t levels = config.block_out_channels.size();
  return {{"_class_name", "AutoencoderKL"},
          {"act_fn", "silu"},
          {"block_out_channels", config.block_out_channels},
          {"down_block_types", std::vector<std::string>(levels, "DownEncoderBlock2D")},
          {"in_channels", config.in_channels},
          {"latent_channels", config.latent_channels},
          {"layers_per_block", config.layers_per_block},
          {"norm_num_groups", config.norm_num_groups},
          {"out_channels", config.out_channels},
          {"sample_size", config.sample_size},
          {"scaling_factor", config.scaling_factor},
          {"up_block_types", std::vector<std::string>(levels, "UpDecoderBlock2D")}};
}

}  // namespace onestep
