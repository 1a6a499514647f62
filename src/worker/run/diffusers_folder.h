// Stable Diffusion on disk: a folder of diffusers, or one file of the original latent diffusion code.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "worker/models/autoencoder_kl.h"
#include "worker/models/bpe_tokenizer.h"
#include "worker/models/clip_text.h"
#include "worker/models/sd_denoiser.h"
#include "worker/models/tiny_autoencoder.h"
#include "worker/tensors/torch.h"

namespace onestep {

// Everything that text to image needs. Parameters do not ask for gradients yet.
struct SdPipeline {
  std::unique_ptr<SdDenoiser> denoiser;
  AutoencoderKl vae{nullptr};
  ClipText text_encoder{nullptr};
  std::unique_ptr<BpeTokenizer> tokenizer;
};

// Which networks of a pipeline get their weights; the others are left null. The tokenizer is always read.
enum class SdParts { kAll, kDenoiser, kOthers };

// All loaders: files are mapped, checked whole, and copied once into the networks' own memory (of the dtype and device of `tensors`); the
// pages of the map go as they are copied, so the peak is one copy. Strict: unknown configuration, and every missing, extra, mis-shaped or
// mis-typed tensor at once. Errors: kNotFound, kConfig, kCorrupt, kMismatch, each naming the file, the key, expected and found.

// `folder` holds model_index.json (StableDiffusionPipeline), unet/, vae/, text_encoder/, tokenizer/ and scheduler/.
SdPipeline load_sd_pipeline(const std::string& folder, const torch::TensorOptions& tensors = torch::kFloat32,
                            SdParts parts = SdParts::kAll);

// One part: config.json beside diffusion_pytorch_model.safetensors (text_encoder: model.safetensors).
std::unique_ptr<SdDenoiser> load_sd_denoiser(const std::string& unet_folder, const std::string& scheduler_folder,
                                             const torch::TensorOptions& tensors = torch::kFloat32);
AutoencoderKl load_autoencoder_kl(const std::string& folder, const torch::TensorOptions& tensors = torch::kFloat32);
// Names an autoencoder by its options and weights, whatever files they came from: equal names, equal latents.
std::string autoencoder_sha256(const AutoencoderKl& vae);
TinyAutoencoder load_tiny_autoencoder(const std::string& folder, const torch::TensorOptions& tensors = torch::kFloat32);
ClipText load_clip_text(const std::string& folder, const torch::TensorOptions& tensors = torch::kFloat32);
// vocab.json, merges.txt, tokenizer_config.json and, where it is there, special_tokens_map.json.
std::unique_ptr<BpeTokenizer> load_clip_tokenizer(const std::string& folder);

// A single .safetensors file of Stable Diffusion 1.x (model.diffusion_model.*, first_stage_model.*, cond_stage_model.transformer.*).
// Such a file has neither configuration nor vocabulary: those come from `like`, a pipeline folder whose weights are not read.
SdPipeline load_ldm_file(const std::string& file, const std::string& like, const torch::TensorOptions& tensors = torch::kFloat32,
                         SdParts parts = SdParts::kAll);

// The embeddings of prompts: token ids, then the text encoder; [B,T,hidden_size] fp32 on the CPU. Errors: those of the tokenizer.
torch::Tensor embed_prompts(SdPipeline& pipeline, const std::vector<std::string>& prompts);

}  // namespace onestep
