// The weights of a tiny Stable Diffusion's folder in one file, under the names of the original latent diffusion code. Written from the
// structure of that code, not from the key map that reads such files.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "common/safetensors_file.h"

namespace onestep {

// Of the U-Net of tiny_unet_config(), which has one resnet a level; empty for a name that it doesn't have.
inline std::string ldm_unet_name(const std::string& name) {
  static const std::vector<std::pair<std::string, std::string>> kModules = {
      {"conv_in.", "input_blocks.0.0."}, {"time_embedding.linear_1.", "time_embed.0."}, {"time_embedding.linear_2.", "time_embed.2."},
      {"down_blocks.0.resnets.0.", "input_blocks.1.0."}, {"down_blocks.0.attentions.0.", "input_blocks.1.1."},
      {"down_blocks.0.downsamplers.0.conv.", "input_blocks.2.0.op."}, {"down_blocks.1.resnets.0.", "input_blocks.3.0."},
      {"mid_block.resnets.0.", "middle_block.0."}, {"mid_block.attentions.0.", "middle_block.1."}, {"mid_block.resnets.1.", "middle_block.2."},
      {"up_blocks.0.resnets.0.", "output_blocks.0.0."}, {"up_blocks.0.resnets.1.", "output_blocks.1.0."},
      {"up_blocks.0.upsamplers.0.conv.", "output_blocks.1.1.conv."}, {"up_blocks.1.resnets.0.", "output_blocks.2.0."},
      {"up_blocks.1.attentions.0.", "output_blocks.2.1."}, {"up_blocks.1.resnets.1.", "output_blocks.3.0."},
      {"up_blocks.1.attentions.1.", "output_blocks.3.1."}, {"conv_norm_out.", "out.0."}, {"conv_out.", "out.2."}};
  static const std::vector<std::pair<std::string, std::string>> kResnet = {
      {"norm1.", "in_layers.0."}, {"conv1.", "in_layers.2."}, {"time_emb_proj.", "emb_layers.1."}, {"norm2.", "out_layers.0."},
      {"conv2.", "out_layers.3."}, {"conv_shortcut.", "skip_connection."}};
  for (const auto& [ours, original] : kModules) {
    if (!name.starts_with(ours)) continue;
    const std::string rest = name.substr(ours.size());
    if (ours.find("resnets") == std::string::npos) return "model.diffusion_model." + original + rest;
    for (const auto& [part, theirs] : kResnet) {
      if (rest.starts_with(part)) return "model.diffusion_model." + original + theirs + rest.substr(part.size());
    }
  }
  return {};
}

// Of the autoencoder of tiny_vae_config().
inline std::string ldm_vae_name(std::string name) {
  static const std::vector<std::pair<std::string, std::string>> kRules = {
      {"encoder.down_blocks.", "encoder.down."}, {"decoder.up_blocks.0.", "decoder.up.1."}, {"decoder.up_blocks.1.", "decoder.up.0."},
      {".mid_block.resnets.0.", ".mid.block_1."}, {".mid_block.resnets.1.", ".mid.block_2."}, {".resnets.", ".block."},
      {".downsamplers.0.", ".downsample."}, {".upsamplers.0.", ".upsample."}, {"conv_shortcut", "nin_shortcut"},
      {".mid_block.attentions.0.group_norm", ".mid.attn_1.norm"}, {".mid_block.attentions.0.to_q", ".mid.attn_1.q"},
      {".mid_block.attentions.0.to_k", ".mid.attn_1.k"}, {".mid_block.attentions.0.to_v", ".mid.attn_1.v"},
      {".mid_block.attentions.0.to_out.0", ".mid.attn_1.proj_out"}, {"conv_norm_out", "norm_out"}};
  for (const auto& [ours, original] : kRules) {
    const std::size_t place = name.find(ours);
    if (place != std::string::npos) name.replace(place, ours.size(), original);
  }
  return "first_stage_model." + name;
}

// `folder` has the layout of diffusers and the parts of tiny_sd(). `first_name`: in place of the first tensor's, where given.
inline void write_ldm_file(const std::string& folder, const std::string& path, const std::string& first_name = "") {
  const SafetensorsFile unet(folder + "/unet/diffusion_pytorch_model.safetensors");
  const SafetensorsFile vae(folder + "/vae/diffusion_pytorch_model.safetensors");
  const SafetensorsFile text(folder + "/text_encoder/model.safetensors");
  std::vector<TensorView> all;
  for (TensorView tensor : unet.tensors()) {
    const std::string name = ldm_unet_name(tensor.name);
    if (name.empty()) throw std::runtime_error("the original code has no name for " + tensor.name);
    tensor.name = name;
    all.push_back(tensor);
  }
  for (TensorView tensor : vae.tensors()) {
    const bool attention = tensor.name.find(".to_") != std::string::npos && tensor.shape.size() == 2;
    if (attention) tensor.shape.insert(tensor.shape.end(), {1, 1});  // 1x1 convolutions there
    tensor.name = ldm_vae_name(tensor.name);
    all.push_back(tensor);
  }
  for (TensorView tensor : text.tensors()) {
    tensor.name.insert(0, "cond_stage_model.transformer.");
    all.push_back(tensor);
  }
  if (!first_name.empty()) all.front().name = first_name;
  write_safetensors(path, all, {});
}

}  // namespace onestep
