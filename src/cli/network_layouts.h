// Names and shapes of every tensor of the published networks, without the networks. Pure.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "common/ldm_names.h"

namespace onestep {

using Shape = std::vector<std::int64_t>;

struct NetworkLayout {
  std::string name;  // "EDM song_unet (DDPM++), 32x32, 10 classes"
  std::map<std::string, Shape> parameters;
  std::map<std::string, Shape> buffers;  // constants that files hold or leave out

  [[nodiscard]] std::int64_t num_parameters() const;
};

// EDM's SongUNet (DDPM++, NCSN++) and DhariwalUNet (ADM); keys begin with "model." as the
// preconditioner owns the network.
struct EdmLayoutOptions {
  bool adm = false;                       // DhariwalUNet, not SongUNet
  std::vector<std::int64_t> resolutions;  // {32, 16, 8}
  std::int64_t in_channels = 3, out_channels = 3;
  std::int64_t model_channels = 128;
  std::vector<std::int64_t> level_channels;  // {256, 256, 256}: one a resolution
  std::int64_t num_blocks = 4;
  std::vector<std::int64_t> attention_resolutions;
  std::int64_t noise_channels = 128, emb_channels = 512;
  std::int64_t label_dim = 0, augment_dim = 0;
  bool fourier = false;     // map_noise.freqs
  bool residual = false;    // NCSN++'s aux_residual in the encoder
  std::int64_t filter = 2;  // side of the resample filter
};
NetworkLayout edm_layout(const EdmLayoutOptions& options);

// EDM2's UNet (Karras et al. 2024) within its preconditioner; ImageNet-512 works on latents of 4 channels.
struct Edm2LayoutOptions {
  std::vector<std::int64_t> resolutions = {64, 32, 16, 8};
  std::vector<std::int64_t> level_channels = {128, 256, 384, 512};
  std::int64_t image_channels = 4, num_blocks = 3;
  std::vector<std::int64_t> attention_resolutions = {16, 8};
  std::int64_t noise_channels = 128, emb_channels = 512;
  std::int64_t label_dim = 1000;
  std::int64_t logvar_channels = 128;  // the training's uncertainty; 0: left out
};
NetworkLayout edm2_layout(const Edm2LayoutOptions& options);

// UNet2DConditionModel of diffusers: Stable Diffusion 1.x, 2.x, XL.
struct SdUnetLayoutOptions {
  std::vector<std::int64_t> channels = {320, 640, 1280, 1280};
  std::vector<std::int64_t> depths = {1, 1, 1, 0};  // transformer blocks a level; 0: no attention
  std::int64_t mid_depth = 1;
  std::int64_t layers = 2;  // residual blocks a level
  std::int64_t context = 768;
  std::int64_t in_channels = 4, out_channels = 4;
  bool linear_projection = false;
  std::int64_t add_embedding = 0;  // XL: 2816
};
NetworkLayout sd_unet_layout(const SdUnetLayoutOptions& options);

// AutoencoderKL of diffusers. `old_names`: query, key, value, proj_attn, as files from before 2023
// have them.
NetworkLayout autoencoder_kl_layout(bool old_names);
// The same network as it stands in a single file of the original code; the autoencoder's attention is of 1x1 convolutions there.
inline const std::string kLdmUnet = "model.diffusion_model.", kLdmAutoencoder = "first_stage_model.";
NetworkLayout under_ldm_names(const NetworkLayout& layout, const std::string& prefix, const ModuleNames& ldm_to_diffusers);
// CLIPTextModel of transformers; `prefix` is "text_model." or "" (transformers 5.6 and later).
NetworkLayout clip_text_layout(std::int64_t width, std::int64_t layers, std::int64_t projection,
                               const std::string& prefix);
// Inception v3 of 2015-12-05 under torchvision's names, with 1008 classes.
NetworkLayout inception_layout();
// torchvision's VGG16 up to its last convolution: features.*.
NetworkLayout vgg16_layout();
// LPIPS v0.1's five weightings for VGG16: lin*.model.1.weight.
NetworkLayout lpips_layout();
// Onestep's digit detector.
NetworkLayout digit_detector_layout(std::int64_t channels, std::int64_t pooled_pixels,
                                    std::int64_t num_classes);

}  // namespace onestep
