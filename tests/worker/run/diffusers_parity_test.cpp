// What diffusers made of our exported folder: tools/golden/make_diffusers_golden.py, which loaded it without a warning and ran one step.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "common/hash.h"
#include "support/golden.h"
#include "support/parity.h"
#include "support/temp_folder.h"
#include "support/tiny_sd.h"

namespace onestep {
namespace {

TEST(DiffusersExport, IsTheFolderThatDiffusersRanAndGivesItsImages) {
  const SafetensorsFile golden(ONESTEP_SOURCE_DIR "/tests/golden/diffusers_export.safetensors");
  const TempFolder folder;
  SdPipeline pipeline = tiny_sd(1);
  export_diffusers_folder(folder.path(), pipeline, tiny_export_options());
  const auto read = nlohmann::json::parse(golden.metadata().at("files"));
  EXPECT_GE(read.size(), 10u);
  for (const auto& [name, digest] : read.items()) {
    EXPECT_EQ(sha256_file(folder / name), digest.get<std::string>()) << name << " is no longer what diffusers loaded: make the golden file again";
  }
  const SafetensorsFile samples(folder / "samples.safetensors");
  const auto images = golden_tensor(samples, "images"), latents = golden_tensor(samples, "latents");
  ParityRow row({"diffusers export", versions_of(nlohmann::json::parse(golden.metadata().at("versions")), {"diffusers", "transformers"}),
                 "whole folder by DiffusionPipeline.from_pretrained, 3 prompts, one step, fp32", kAbsolute, "none: a file"});
  row.forward((latents - golden_tensor(golden, "latents")).abs().max().item<double>(), 1e-4, "latents");
  row.forward(((images / 2 + 0.5).clamp(0, 1) - golden_tensor(golden, "images")).abs().max().item<double>(), 1e-4, "images");
}

}  // namespace
}  // namespace onestep
