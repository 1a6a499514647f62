#include "worker/models/sd_unet_config.h"

#include <algorithm>

#include "worker/models/diffusers_config.h"

namespace onestep {
namespace {

using nlohmann::json;

constexpr std::int64_t kMaxUnetSize = 1 << 20;

// Options of the class that only other networks set.
const std::vector<FixedKey> kFixedUnetKeys = {
    {"_class_name", R"(["UNet2DConditionModel"])"},
    {"act_fn", R"(["silu"])"},
    {"addition_embed_type", "[null]"},
    {"addition_time_embed_dim", "[null]"},
    {"attention_type", R"(["default"])"},
    {"center_input_sample", "[false]"},
    {"class_embed_type", "[null]"},
    {"class_embeddings_concat", "[false]"},
    {"conv_in_kernel", "[3]"},
    {"conv_out_kernel", "[3]"},
    {"cross_attention_norm", "[null]"},
    {"downsample_padding", "[1]"},
    {"dropout", "[0.0]"},
    {"dual_cross_attention", "[false]"},
    {"encoder_hid_dim", "[null]"},
    {"encoder_hid_dim_type", "[null]"},
    {"flip_sin_to_cos", "[true]"},
    {"freq_shift", "[0]"},
    {"mid_block_only_cross_attention", "[null, false]"},
    {"mid_block_scale_factor", "[1]"},
    {"mid_block_type", R"(["UNetMidBlock2DCrossAttn"])"},
    {"num_attention_heads", "[null]"},
    {"num_class_embeds", "[null]"},
    {"only_cross_attention", "[false]"},
    {"projection_class_embeddings_input_dim", "[null]"},
    {"resnet_out_scale_factor", "[1.0]"},
    {"resnet_skip_time_act", "[false]"},
    {"resnet_time_scale_shift", R"(["default"])"},
    {"reverse_transformer_layers_per_block", "[null]"},
    {"time_cond_proj_dim", "[null]"},
    {"time_embedding_act_fn", "[null]"},
    {"time_embedding_dim", "[null]"},
    {"time_embedding_type", R"(["positional"])"},
    {"timestep_post_act", "[null]"},
    {"transformer_layers_per_block", "[1]"},
};

// The list of block types as "has attention".
std::vector<bool> attention_of(ConfigReader& reader, const char* key, const std::string& with, const std::string& without,
                               const std::vector<bool>& fallback) {
  std::vector<bool> attention;
  for (const std::string& type : reader.texts(key, {})) {
    if (type != with && type != without) {
      reader.violation(key, "expected " + with + " or " + without + ", found " + type);
    }
    attention.push_back(type == with);
  }
  return reader.has(key) ? attention : fallback;
}

std::vector<std::string> types_of(const std::vector<bool>& attention, const char* with, const char* without) {
  std::vector<std::string> types;
  for (const bool attends : attention) types.emplace_back(attends ? with : without);
  return types;
}

void check_together(ConfigReader& reader, const SdUnetConfig& config) {
  const std::size_t levels = config.block_out_channels.size();
  const auto same_length = [&](const char* key, std::size_t length) {
    if (length == levels) return;
    reader.violation(key, "expected " + std::to_string(levels) + " entries, as block_out_channels has, found " +
                              std::to_string(length));
  };
  same_length("attention_head_dim", config.num_heads.size());
  same_length("down_block_types", config.down_attention.size());
  same_length("up_block_types", config.up_attention.size());
  if (levels == 0) reader.violation("block_out_channels", "expected one level or more, found none");
  for (std::size_t level = 0; level < std::min(levels, config.num_heads.size()); ++level) {
    const std::int64_t channels = config.block_out_channels[level];
    if (channels % config.norm_num_groups == 0 && channels % config.num_heads[level] == 0) continue;
    reader.violation("block_out_channels", "expected multiples of norm_num_groups (" +
                                               std::to_string(config.norm_num_groups) + ") and of the heads (" +
                                               std::to_string(config.num_heads[level]) + "), found " +
                                               std::to_string(channels));
  }
}

}  // namespace

SdUnetConfig sd_unet_config_from_json(const json& document, const std::string& where) {
  ConfigReader reader(document, "");
  SdUnetConfig config;
  if (document.is_object()) {
    check_fixed_keys(reader, document, kFixedUnetKeys);
    know_harmless_keys(reader, document, {"addition_embed_type_num_heads"});
    require_keys(reader, {"_class_name"});
  }
  config.sample_size = reader.required_integer("sample_size", 1, kMaxUnetSize);
  config.in_channels = reader.integer("in_channels", config.in_channels, 1, kMaxUnetSize);
  config.out_channels = reader.integer("out_channels", config.out_channels, 1, kMaxUnetSize);
  config.block_out_channels = reader.integers("block_out_channels", config.block_out_channels, 1, kMaxUnetSize);
  config.layers_per_block = reader.integer("layers_per_block", config.layers_per_block, 1, 64);
  config.cross_attention_dim = reader.required_integer("cross_attention_dim", 1, kMaxUnetSize);
  config.norm_num_groups = reader.integer("norm_num_groups", config.norm_num_groups, 1, kMaxUnetSize);
  config.norm_eps = reader.number("norm_eps", config.norm_eps, 0, 1);
  config.use_linear_projection = reader.boolean("use_linear_projection", config.use_linear_projection);
  config.upcast_attention = reader.boolean("upcast_attention", config.upcast_attention);
  const std::size_t levels = config.block_out_channels.size();
  const bool list = document.is_object() && document.contains("attention_head_dim") && document["attention_head_dim"].is_array();
  config.num_heads = list ? reader.integers("attention_head_dim", config.num_heads, 1, kMaxUnetSize)
                          : std::vector<std::int64_t>(levels, reader.integer("attention_head_dim", 8, 1, kMaxUnetSize));
  config.down_attention = attention_of(reader, "down_block_types", "CrossAttnDownBlock2D", "DownBlock2D", config.down_attention);
  config.up_attention = attention_of(reader, "up_block_types", "CrossAttnUpBlock2D", "UpBlock2D", config.up_attention);
  check_together(reader, config);
  reader.finish(where);
  return config;
}

json to_diffusers_json(const SdUnetConfig& config) {
  const auto& heads = config.num_heads;
  const bool equal = std::equal(heads.begin() + 1, heads.end(), heads.begin());
  return {{"_class_name", "UNet2DConditionModel"},
          {"act_fn", "silu"},
          {"attention_head_dim", equal ? json(heads.front()) : json(heads)},
          {"block_out_channels", config.block_out_channels},
          {"center_input_sample", false},
          {"cross_attention_dim", config.cross_attention_dim},
          {"down_block_types", types_of(config.down_attention, "CrossAttnDownBlock2D", "DownBlock2D")},
          {"downsample_padding", 1},
          {"flip_sin_to_cos", true},
          {"freq_shift", 0},
          {"in_channels", config.in_channels},
          {"layers_per_block", config.layers_per_block},
          {"mid_block_scale_factor", 1},
          {"norm_eps", config.norm_eps},
          {"norm_num_groups", config.norm_num_groups},
          {"out_channels", config.out_channels},
          {"sample_size", config.sample_size},
          {"up_block_types", types_of(config.up_attention, "CrossAttnUpBlock2D", "UpBlock2D")},
          {"upcast_attention", config.upcast_attention},
          {"use_linear_projection", config.use_linear_projection}};
}

}  // namespace onestep
