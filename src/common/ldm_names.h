// Names of modules in single files of the original latent diffusion code ("LDM", Stable Diffusion) and in diffusers. Pure.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <vector>

namespace onestep {

// Module of the one -> module of the other.
using ModuleNames = std::map<std::string, std::string>;

// The longest leading part of `name`, cut at dots, that the map knows is replaced; a name without one stays as it is.
std::string renamed(const std::string& name, const ModuleNames& modules);
// The other way round.
ModuleNames reversed(const ModuleNames& modules);

// How LDM numbers a UNet's blocks. Default: Stable Diffusion 1.x and 2.x.
struct LdmUnetBlocks {
  std::size_t levels = 4, layers = 2;
  std::vector<bool> up_attention = {false, true, true, true};  // of each level of the decoder, from the middle up
};
// LDM -> diffusers, without the prefix "model.diffusion_model.".
ModuleNames ldm_unet_modules(const LdmUnetBlocks& blocks);
// Without "first_stage_model."; `layers` of a level of the encoder.
ModuleNames ldm_vae_modules(std::size_t levels, std::size_t layers);

// Noise tables and the training's average (model_ema.*): of no network.
bool is_ldm_leftover(const std::string& name);

}  // namespace onestep
