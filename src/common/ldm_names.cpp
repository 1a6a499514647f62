#include "common/ldm_names.h"

#include <array>
#include <set>
#include <utility>

namespace onestep {
namespace {

std::string number(std::size_t value) { return std::to_string(value); }

void add_unet_resnet(ModuleNames& modules, const std::string& theirs, const std::string& ours) {
  modules[theirs + ".in_layers.0"] = ours + ".norm1";
  modules[theirs + ".in_layers.2"] = ours + ".conv1";
  modules[theirs + ".emb_layers.1"] = ours + ".time_emb_proj";
  modules[theirs + ".out_layers.0"] = ours + ".norm2";
  modules[theirs + ".out_layers.3"] = ours + ".conv2";
  modules[theirs + ".skip_connection"] = ours + ".conv_shortcut";
}

void add_vae_half(ModuleNames& modules, const std::string& half, const std::string& side, std::size_t levels, std::size_t layers) {
  const bool encoder = half == "encoder";
  modules[half + ".conv_in"] = half + ".conv_in";
  modules[half + ".conv_out"] = half + ".conv_out";
  modules[half + ".norm_out"] = half + ".conv_norm_out";
  const auto add_resnet = [&](const std::string& theirs, const std::string& ours) {
    modules[theirs + ".nin_shortcut"] = ours + ".conv_shortcut";
    modules[theirs] = ours;  // norm1, conv1, norm2, conv2
  };
  add_resnet(half + ".mid.block_1", half + ".mid_block.resnets.0");
  add_resnet(half + ".mid.block_2", half + ".mid_block.resnets.1");
  static constexpr std::array<std::pair<const char*, const char*>, 5> kAttention = {
      {{"norm", "group_norm"}, {"q", "to_q"}, {"k", "to_k"}, {"v", "to_v"}, {"proj_out", "to_out.0"}}};
  for (const auto& [theirs, ours] : kAttention) {
    modules[half + ".mid.attn_1." + theirs] = half + ".mid_block.attentions.0." + ours;
  }
  for (std::size_t level = 0; level < levels; ++level) {
    // Both number the encoder's levels from the image down; the decoder's, diffusers from the latents up.
    const std::string theirs = half + "." + side + "." + number(level);
    const std::string ours = half + "." + side + "_blocks." + number(encoder ? level : levels - 1 - level);
    for (std::size_t layer = 0; layer < layers; ++layer) {
      add_resnet(theirs + ".block." + number(layer), ours + ".resnets." + number(layer));
    }
    modules[theirs + (encoder ? ".downsample.conv" : ".upsample.conv")] =
        ours + (encoder ? ".downsamplers.0.conv" : ".upsamplers.0.conv");
  }
}

}  // namespace

std::string renamed(const std::string& name, const ModuleNames& modules) {
  for (std::size_t end = name.rfind('.'); end != std::string::npos && end > 0; end = name.rfind('.', end - 1)) {
    const auto found = modules.find(name.substr(0, end));
    if (found != modules.end()) return found->second + name.substr(end);
  }
  return name;
}

ModuleNames reversed(const ModuleNames& modules) {
  ModuleNames back;
  for (const auto& [from, to] : modules) back[to] = from;
  return back;
}

ModuleNames ldm_unet_modules(const LdmUnetBlocks& blocks) {
  ModuleNames modules = {{"time_embed.0", "time_embedding.linear_1"},
                         {"time_embed.2", "time_embedding.linear_2"},
                         {"label_emb.0.0", "add_embedding.linear_1"},
                         {"label_emb.0.2", "add_embedding.linear_2"},
                         {"input_blocks.0.0", "conv_in"},
                         {"out.0", "conv_norm_out"},
                         {"out.2", "conv_out"},
                         {"middle_block.1", "mid_block.attentions.0"}};
  const std::size_t levels = blocks.levels;
  const auto layers = blocks.layers;
  std::size_t block = 1;  // 0 is conv_in
  for (std::size_t level = 0; level < levels; ++level) {
    const std::string ours = "down_blocks." + number(level);
    for (std::size_t layer = 0; layer < layers; ++layer, ++block) {
      const std::string theirs = "input_blocks." + number(block);
      add_unet_resnet(modules, theirs + ".0", ours + ".resnets." + number(layer));
      modules[theirs + ".1"] = ours + ".attentions." + number(layer);
    }
    if (level + 1 == levels) continue;
    modules["input_blocks." + number(block++) + ".0.op"] = ours + ".downsamplers.0.conv";
  }
  add_unet_resnet(modules, "middle_block.0", "mid_block.resnets.0");
  add_unet_resnet(modules, "middle_block.2", "mid_block.resnets.1");
  block = 0;
  for (std::size_t level = 0; level < levels; ++level) {
    const std::string ours = "up_blocks." + number(level);
    for (std::size_t layer = 0; layer <= layers; ++layer, ++block) {
      const std::string theirs = "output_blocks." + number(block);
      add_unet_resnet(modules, theirs + ".0", ours + ".resnets." + number(layer));
      // The upsampling stands behind the attention, where there is one.
      const bool attends = blocks.up_attention[level];
      if (attends) modules[theirs + ".1"] = ours + ".attentions." + number(layer);
      if (layer == layers && level + 1 < levels) {
        modules[theirs + (attends ? ".2" : ".1") + ".conv"] = ours + ".upsamplers.0.conv";
      }
    }
  }
  return modules;
}

ModuleNames ldm_vae_modules(std::size_t levels, std::size_t layers) {
  ModuleNames modules;
  add_vae_half(modules, "encoder", "down", levels, layers);
  add_vae_half(modules, "decoder", "up", levels, layers + 1);
  return modules;
}

bool is_ldm_leftover(const std::string& name) {
  static const std::set<std::string> kTables = {
      "betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod",
      "log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod", "posterior_variance",
      "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2", "logvar", "lvlb_weights",
      "scale_factor"};
  return kTables.contains(name) || name.starts_with("model_ema.");
}

}  // namespace onestep
