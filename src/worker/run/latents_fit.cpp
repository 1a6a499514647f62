#include "worker/run/latents_fit.h"

#include "common/error.h"

namespace onestep {

void check_latents_fit(const LatentDataset& latents, const std::string& where, const LatentsExpected& expected) {
  const auto expect = [](const std::string& what, const std::string& wanted, const std::string& found) {
    if (wanted != found) throw Error(ErrorCode::kMismatch, what + ": expected " + wanted + ", found " + found);
  };
  const ImageShape& shape = expected.shape;
  expect(where + ": autoencoder_sha256 (that of " + expected.autoencoder_of + ")", expected.autoencoder_sha256, latents.autoencoder_sha256);
  expect(where + ": shape of a latent", c10::str(at::IntArrayRef({shape.channels, shape.height, shape.width})),
         c10::str(latents.latents.sizes().slice(1)));
  expect(expected.prompts->path() + ": prompts (one for each class of " + where + ")", std::to_string(latents.num_classes),
         std::to_string(expected.prompts->size()));
}

}  // namespace onestep
