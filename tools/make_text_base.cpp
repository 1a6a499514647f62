// make_text_base OPTIONS AUTOENCODER FOLDER: the base of a train_text_teacher job from options alone.
//
// OPTIONS is a pipeline folder of diffusers without weights: its options, schedule and tokenizer are taken. AUTOENCODER is the output folder
// of a train_autoencoder job. FOLDER, which may be OPTIONS, becomes the pipeline without the U-Net's weights, all others in fp16: the
// autoencoder's, and keyed random ones of a text encoder that is never trained. Equal input gives equal bytes.
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>

#include "common/config.h"
#include "common/error.h"
#include "worker/models/raw_layers.h"
#include "worker/run/clip_tokenizer_files.h"
#include "worker/run/diffusers_export.h"
#include "worker/run/sd_network.h"

namespace onestep {
namespace {

constexpr std::uint64_t kTextSeed = 1;

SdPipeline pipeline_of(const std::string& options, const std::string& autoencoder) {
  const SdNetwork network = read_sd_network({options, "", ""});
  const std::string text = options + "/text_encoder/config.json";
  SdPipeline pipeline;
  pipeline.denoiser = std::make_unique<SdDenoiser>(network.unet, network.schedule);
  initialize_raw_layers(pipeline.denoiser->module(), 0, "unet.");  // the exporter writes whole pipelines
  pipeline.vae = load_autoencoder_kl(autoencoder);
  pipeline.text_encoder = ClipText(clip_text_config_from_json(read_json_file(text), text));
  initialize_raw_layers(*pipeline.text_encoder, kTextSeed, "text_encoder.");
  pipeline.tokenizer = load_clip_tokenizer(options + "/tokenizer");
  return pipeline;
}

void make_text_base(const std::string& options, const std::string& autoencoder, const std::string& folder) {
  SdPipeline pipeline = pipeline_of(options, autoencoder);
  export_teacher_folder(folder, pipeline, DType::kF16);
  std::filesystem::remove(folder + "/unet/diffusion_pytorch_model.safetensors");
  std::filesystem::remove(folder + "/SHA256SUMS");
}

}  // namespace
}  // namespace onestep

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: make_text_base OPTIONS AUTOENCODER FOLDER\n");
    return 2;
  }
  try {
    onestep::make_text_base(argv[1], argv[2], argv[3]);
  } catch (const onestep::Error& error) {
    std::fprintf(stderr, "make_text_base: %s\n", error.what());
    return onestep::exit_status(error.code());
  }
  return 0;
}
