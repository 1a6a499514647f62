#include "worker/models/weight_names.h"

#include <string_view>
#include <utility>

#include "common/ldm_names.h"

namespace onestep {
namespace {

// The name behind the prefix; nothing for another name.
bool take_prefix(std::string& name, std::string_view prefix) {
  if (!name.starts_with(prefix)) return false;
  name.erase(0, prefix.size());
  return true;
}

bool is_vae_attention(const std::string& name) { return name.find(".mid_block.attentions.0.to_") != std::string::npos; }

}  // namespace

std::vector<TensorView> diffusers_vae_names(std::vector<TensorView> tensors) {
  ModuleNames modules;
  for (const char* half : {"encoder", "decoder"}) {
    const std::string attention = std::string(half) + ".mid_block.attentions.0.";
    modules[attention + "query"] = attention + "to_q";
    modules[attention + "key"] = attention + "to_k";
    modules[attention + "value"] = attention + "to_v";
    modules[attention + "proj_attn"] = attention + "to_out.0";
  }
  for (TensorView& tensor : tensors) tensor.name = renamed(tensor.name, modules);
  return tensors;
}

std::vector<TensorView> clip_text_names(std::vector<TensorView> tensors) {
  static constexpr std::string_view kPrefix = "text_model.";
  std::vector<TensorView> named;
  for (TensorView& tensor : tensors) {
    if (!tensor.name.starts_with(kPrefix)) tensor.name.insert(0, kPrefix);
    if (tensor.name != "text_model.embeddings.position_ids") named.push_back(std::move(tensor));
  }
  return named;
}

LdmParts split_ldm(const std::vector<TensorView>& tensors, const SdUnetConfig& unet, const AutoencoderKlConfig& vae) {
  const ModuleNames unet_names = ldm_unet_modules(
      {unet.block_out_channels.size(), static_cast<std::size_t>(unet.layers_per_block), unet.up_attention});
  const ModuleNames vae_names = ldm_vae_modules(vae.block_out_channels.size(), static_cast<std::size_t>(vae.layers_per_block));
  LdmParts parts;
  for (TensorView tensor : tensors) {
    if (is_ldm_leftover(tensor.name)) continue;
    if (take_prefix(tensor.name, "model.diffusion_model.")) {
      tensor.name = renamed(tensor.name, unet_names);
      parts.unet.push_back(tensor);
    } else if (take_prefix(tensor.name, "first_stage_model.")) {
      tensor.name = renamed(tensor.name, vae_names);
      const bool pointwise = tensor.shape.size() == 4 && tensor.shape[2] == 1 && tensor.shape[3] == 1;
      if (pointwise && is_vae_attention(tensor.name)) tensor.shape.resize(2);
      parts.vae.push_back(tensor);
    } else if (take_prefix(tensor.name, "cond_stage_model.transformer.")) {
      parts.text.push_back(tensor);
    } else {
      parts.unknown.push_back(tensor.name);
    }
  }
  parts.text = clip_text_names(std::move(parts.text));
  return parts;
}

}  // namespace onestep
