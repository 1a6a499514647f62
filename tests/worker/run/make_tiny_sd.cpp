// make_tiny_sd FOLDER [float32|float16|bfloat16] [epsilon|v_prediction]: exports a tiny Stable Diffusion for tools/check_diffusers_export.py to load.
#include <cstdio>
#include <string>

#include "common/error.h"
#include "support/tiny_sd.h"

int main(int argc, char** argv) {
  using namespace onestep;
  if (argc < 2 || argc > 4) {
    std::fprintf(stderr, "usage: make_tiny_sd FOLDER [float32|float16|bfloat16] [epsilon|v_prediction]\n");
    return 2;
  }
  const std::string dtype = argc > 2 ? argv[2] : "float32";
  SdExportOptions options = tiny_export_options();
  options.dtype = dtype == "float16" ? DType::kF16 : dtype == "bfloat16" ? DType::kBF16 : DType::kF32;
  try {
    SdPipeline pipeline = tiny_sd(1, argc > 3 && std::string(argv[3]) == "v_prediction" ? Prediction::kV : Prediction::kEpsilon);
    std::printf("%s\n", export_diffusers_folder(argv[1], pipeline, options).c_str());
  } catch (const Error& error) {
    std::fprintf(stderr, "make_tiny_sd: %s\n", error.what());
    return exit_status(error.code());
  }
  return 0;
}
