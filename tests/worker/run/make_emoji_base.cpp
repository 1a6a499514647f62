// make_emoji_base FOLDER [AUTOENCODER]: writes configs/sd15/tiny anew, weights in fp16: a pipeline folder without the U-Net's weights,
// with the autoencoder that a train_autoencoder job left in the folder AUTOENCODER; without one, with its options alone.
#include <cstdio>
#include <filesystem>
#include <string>

#include "common/error.h"
#include "support/emoji_sd.h"
#include "worker/run/diffusers_export.h"

int main(int argc, char** argv) {
  using namespace onestep;
  if (argc < 2 || argc > 3) {
    std::fprintf(stderr, "usage: make_emoji_base FOLDER [AUTOENCODER]\n");
    return 2;
  }
  const std::string folder = argv[1];
  try {
    SdPipeline pipeline = emoji_base(argc > 2 ? load_autoencoder_kl(argv[2]) : AutoencoderKl(nullptr));
    export_teacher_folder(folder, pipeline, DType::kF16);
    std::filesystem::remove(folder + "/unet/diffusion_pytorch_model.safetensors");
    if (argc == 2) std::filesystem::remove(folder + "/vae/diffusion_pytorch_model.safetensors");
    std::filesystem::remove(folder + "/SHA256SUMS");
  } catch (const Error& error) {
    std::fprintf(stderr, "make_emoji_base: %s\n", error.what());
    return exit_status(error.code());
  }
  return 0;
}
