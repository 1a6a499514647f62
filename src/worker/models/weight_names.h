// Names of tensors in files of other people -> the names of the networks here, which are those of diffusers and transformers.
#pragma once

#include <string>
#include <vector>

#include "common/safetensors_file.h"
#include "worker/models/autoencoder_kl_config.h"
#include "worker/models/sd_unet_config.h"

namespace onestep {

// Views are renamed (and reshaped where said), their bytes untouched. A name that no rule knows stays as it is: the strict loader names it.

// Attention of older files: query, key, value, proj_attn -> to_q, to_k, to_v, to_out.0.
std::vector<TensorView> diffusers_vae_names(std::vector<TensorView> tensors);
// Adds the prefix "text_model." where it is missing (transformers from 5.6 on); leaves out position_ids.
std::vector<TensorView> clip_text_names(std::vector<TensorView> tensors);

// A checkpoint of the original latent diffusion code ("LDM", one file), taken apart under the names of diffusers.
struct LdmParts {
  std::vector<TensorView> unet, vae, text;
  std::vector<std::string> unknown;  // tensors of no part
};
// model.diffusion_model.*, first_stage_model.* and cond_stage_model.transformer.* of Stable Diffusion 1.x; noise tables and the average
// (model_ema.*) are left out. The autoencoder's attention, 1x1 convolutions there, becomes [C,C].
LdmParts split_ldm(const std::vector<TensorView>& tensors, const SdUnetConfig& unet, const AutoencoderKlConfig& vae);

}  // namespace onestep
