// Whether an image set's latents are those that a text-to-image network works on.
#pragma once

#include <string>

#include "worker/data/latent_dataset.h"
#include "worker/data/prompt_embeddings.h"
#include "worker/diffusion/denoiser.h"

namespace onestep {

struct LatentsExpected {
  ImageShape shape;
  std::string autoencoder_sha256, autoencoder_of;  // its digest, and the model whose it is
  const PromptEmbeddings* prompts = nullptr;       // one for each class; borrowed
};

// `where`: the folder that `latents` came from. Errors: kMismatch naming it, expected, found.
void check_latents_fit(const LatentDataset& latents, const std::string& where, const LatentsExpected& expected);

}  // namespace onestep
