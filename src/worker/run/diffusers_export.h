// Writes Stable Diffusion as a folder that diffusers loads: DiffusionPipeline.from_pretrained(folder), one or few steps, no guidance.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "common/safetensors_file.h"
#include "worker/run/diffusers_folder.h"

namespace onestep {

// What the card, README.md, says of the model; an empty text is left out.
struct SdModelCard {
  std::string teacher;  // name and digest
  std::string data;     // what it was distilled on
  std::string metric;   // "FID 8.4 on ...": figure and protocol
  std::int64_t steps = 0, images = 0;  // of the distillation
};

struct SdExportOptions {
  DType dtype = DType::kF32;  // of all weights: kF32, kF16 or kBF16
  SdModelCard card;
  std::vector<double> student_timesteps;  // of a student of several steps; empty: one step
  nlohmann::json origin;      // onestep.json: facts for load_model(), and the digest of the U-Net's file; no such file when null
  std::vector<std::string> sample_prompts = {"a photo of a cat"};  // for samples.safetensors; none: no such file
};

// Writes model_index.json, unet/, vae/, text_encoder/, tokenizer/, scheduler/ (LCMScheduler, whose steps are the student's), README.md
// and samples.safetensors: noise [N,4,h,w] of seed 0, latents x0 and images [N,3,H,W] (not clamped) of the weights before their rounding to
// `dtype`, of a student of several steps the noise behind each (noise_1, ...), prompts as JSON in its metadata. SHA256SUMS, last, lists every file. Equal input gives equal bytes. Each file appears whole or not
// at all. Returns the SHA-256 of SHA256SUMS. Errors: kIo; kUsage for another dtype; kMismatch when the prediction is not epsilon, since the
// card's one step holds for that alone.
std::string export_diffusers_folder(const std::string& folder, SdPipeline& pipeline, const SdExportOptions& options);

// A teacher in the same layout: PNDMScheduler, no samples, no onestep.json. Returns the SHA-256 of SHA256SUMS. Errors: kIo, kUsage.
std::string export_teacher_folder(const std::string& folder, SdPipeline& pipeline, DType dtype = DType::kF32);

// One part, config.json beside diffusion_pytorch_model.safetensors (fp32), under these options. Errors: kIo.
void save_autoencoder_kl(const std::string& folder, const AutoencoderKlConfig& config, const AutoencoderKlImpl& network);

// The U-Net alone in one file under diffusers' names: UNet2DConditionModel.from_single_file(path, config=...). Returns its SHA-256.
std::string export_unet_file(const std::string& path, SdDenoiser& denoiser, DType dtype);

// The student's images of noise [N,4,h,w] fp32: text of the prompts, x0 at the last step, or at the last of its timesteps with the noise
// of seed 0 between them; decoded, not clamped.
struct SdSamples {
  torch::Tensor latents, images;
};
SdSamples sample_student(SdPipeline& pipeline, const torch::Tensor& noise, const std::vector<std::string>& prompts,
                         const std::vector<double>& student_timesteps = {});

}  // namespace onestep
