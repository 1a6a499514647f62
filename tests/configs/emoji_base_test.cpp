// configs/sd15/tiny.json and the base folder that is committed beside it fit each other.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <map>
#include <set>

#include "common/config.h"
#include "common/error.h"
#include "common/pipeline.h"
#include "support/files.h"
#include "support/temp_folder.h"
#include "worker/run/sd_network.h"

namespace onestep {
namespace {

namespace fs = std::filesystem;

const std::string kConfig = ONESTEP_SOURCE_DIR "/configs/sd15/tiny.json";
const std::string kBase = ONESTEP_SOURCE_DIR "/configs/sd15/tiny";
// What tools/make_emoji.py writes: the Unicode names of its emoji.
const std::vector<std::string> kCaptions = {"red apple", "banana",  "sunflower",   "cat face", "panda face", "frog face",
                                            "octopus",   "soccer ball", "rocket", "automobile", "jack-o-lantern", "slice of pizza"};
constexpr std::int64_t kSide = 64;  // pixels of its pictures

template <class Spec>
std::map<std::string, Spec> specs_of_kind() {
  std::map<std::string, Spec> specs;
  for (const PipelineJob& job : parse_pipeline(read_json_file(kConfig), fs::path(kConfig).parent_path(), kConfig).jobs) {
    if (const auto* spec = std::get_if<Spec>(&job.spec.options)) specs[job.spec.name] = *spec;
  }
  return specs;
}

std::map<std::string, std::string> files_below(const std::string& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file()) files[fs::relative(entry.path(), folder)] = slurp(entry.path());
  }
  return files;
}

TEST(EmojiBase, IsAPipelineWithoutItsUnetsWeights) {
  const SdPipeline parts = load_sd_pipeline(kBase, torch::kFloat32, SdParts::kOthers);
  const SdNetwork network = read_sd_network({kBase, "", ""});
  const AutoencoderKlConfig& vae = parts.vae->config();
  EXPECT_EQ(vae.sample_size, kSide);
  EXPECT_EQ(network.unet.in_channels, vae.latent_channels);
  EXPECT_EQ(network.unet.sample_size << (vae.block_out_channels.size() - 1), kSide);
  EXPECT_EQ(network.schedule.prediction, Prediction::kEpsilon);
  const auto files = files_below(kBase);
  std::size_t bytes = 0;
  for (const auto& [name, content] : files) bytes += content.size();
  EXPECT_LT(bytes, 2'000'000u);
  EXPECT_FALSE(files.contains("unet/diffusion_pytorch_model.safetensors"));
}

TEST(EmojiBase, ItsTextEncoderTellsTheCaptionsApart) {
  SdPipeline parts = load_sd_pipeline(kBase, torch::kFloat32, SdParts::kOthers);
  std::set<std::vector<std::int64_t>> ids = {parts.tokenizer->encode("")};
  const std::int64_t end = parts.tokenizer->encode("").at(1);
  for (const std::string& caption : kCaptions) {
    const auto tokens = parts.tokenizer->encode(caption);
    EXPECT_LT(std::find(tokens.begin(), tokens.end(), end), tokens.end() - 1) << caption << " is cut";
    ids.insert(tokens);
  }
  EXPECT_EQ(ids.size(), kCaptions.size() + 1);
  const auto text = embed_prompts(parts, kCaptions).flatten(1);
  const auto apart = torch::cdist(text, text) + 1e9 * torch::eye(text.size(0));
  EXPECT_GT(apart.min().item<double>(), 1);
}

TEST(EmojiBase, TheToolMakesItsBytes) {
  const TempFolder folder;
  const std::string command = ONESTEP_BINARY_DIR "/bin/make_text_base " + kBase + " " + kBase + "/vae " + (folder / "again");
  ASSERT_EQ(std::system(command.c_str()), 0);
  EXPECT_EQ(files_below(folder / "again"), files_below(kBase));
}

TEST(EmojiPipeline, ItsJobsFitItsBase) {
  for (const auto& [name, spec] : specs_of_kind<TrainTextTeacherSpec>()) EXPECT_EQ(spec.base, kBase) << name;
  for (const auto& [name, spec] : specs_of_kind<EncodeSpec>()) EXPECT_EQ(spec.autoencoder, kBase + "/vae") << name;
  for (const auto& [name, spec] : specs_of_kind<EncodePromptsSpec>()) EXPECT_EQ(spec.teacher, kBase) << name;
  const auto detectors = specs_of_kind<TrainDetectorSpec>();
  ASSERT_EQ(detectors.size(), 1u);
  const DatasetSpec judged = detectors.at("detector").dataset;
  EXPECT_EQ(kSide % judged.resolution, 0);
  const auto classes = static_cast<std::int64_t>(kCaptions.size());
  const auto evaluations = specs_of_kind<EvaluateSpec>();
  EXPECT_EQ(evaluations.size(), 4u);
  for (const auto& [name, spec] : evaluations) {
    EXPECT_EQ(spec.dataset.path, judged.path) << name;
    EXPECT_EQ(spec.dataset.resolution, judged.resolution) << name;
    // The panel shows ten of each caption.
    EXPECT_TRUE(spec.source != "model" || spec.count >= 10 * classes) << name;
  }
  // One sampler makes the pairs and the judged images of the teacher.
  EXPECT_EQ(to_json(specs_of_kind<GeneratePairsSpec>().at("pairs").sampler), to_json(evaluations.at("evaluate_teacher").sampler));
}

}  // namespace
}  // namespace onestep
