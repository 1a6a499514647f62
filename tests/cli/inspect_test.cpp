#include "cli/inspect.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "cli/network_layouts.h"
#include "cli/verify.h"
#include "common/hash.h"
#include "common/image_file.h"
#include "common/safetensors_file.h"
#include "support/files.h"
#include "support/stored_zip.h"
#include "support/temp_folder.h"

namespace onestep {
namespace {

namespace fs = std::filesystem;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

const std::string kGolden = std::string(ONESTEP_SOURCE_DIR) + "/tests/golden/";

// Zeros in the shapes of a network.
void write_network(const std::string& path, const NetworkLayout& layout) {
  std::vector<TensorView> tensors;
  std::vector<std::byte> zeros(1 << 20);
  for (const auto& [name, shape] : layout.parameters) {
    std::size_t elements = 1;
    for (const std::int64_t size : shape) elements *= static_cast<std::size_t>(size);
    ASSERT_LE(2 * elements, zeros.size()) << name;
    tensors.push_back({name, DType::kF16, shape, std::span(zeros).first(2 * elements)});
  }
  write_safetensors(path, tensors, {{"note", "zeros"}});
}

NetworkLayout small_ddpmpp() {
  EdmLayoutOptions options;
  options.resolutions = {16, 8};
  options.level_channels = {32, 64};
  options.model_channels = options.noise_channels = 32;
  options.emb_channels = 128;
  options.num_blocks = 1;
  options.attention_resolutions = {8};
  return edm_layout(options);
}

TEST(Inspect, SafetensorsOfANetwork) {
  const TempFolder folder;
  const NetworkLayout layout = small_ddpmpp();
  write_network(folder / "net.safetensors", layout);
  const Inspection found = inspect_path(folder / "net.safetensors");
  EXPECT_EQ(found.format, "safetensors");
  EXPECT_EQ(found.network, "EDM song_unet (DDPM++), 16x16, 3 channels, unconditional");
  EXPECT_EQ(found.parameters, layout.num_parameters());
  EXPECT_EQ(found.tensors.at("F16").tensors, static_cast<std::int64_t>(layout.parameters.size()));
  EXPECT_EQ(found.tensors.at("F16").bytes, static_cast<std::uint64_t>(2 * layout.num_parameters()));
  EXPECT_EQ(found.digest, sha256(slurp(folder / "net.safetensors")));
  EXPECT_THAT(found.facts, Contains(Pair("metadata note", "zeros")));
  EXPECT_THAT(found.problems, IsEmpty());
  EXPECT_EQ(print_inspection(folder / "net.safetensors", true), 0);
}

TEST(Inspect, TheFirstProblemsOfANetworkAndHowManyMore) {
  const TempFolder folder;
  NetworkLayout layout = small_ddpmpp();
  std::erase_if(layout.parameters, [](const auto& tensor) {
    return tensor.first.find("dec.8x8_block") != std::string::npos;
  });
  write_network(folder / "net.safetensors", layout);
  const Inspection found = inspect_path(folder / "net.safetensors");
  ASSERT_EQ(found.problems.size(), kMaxProblems + 1);
  EXPECT_THAT(found.problems.front(), HasSubstr("model.dec.8x8_block0.affine.bias: expected"));
  EXPECT_THAT(found.problems.back(), HasSubstr("more"));
  EXPECT_EQ(print_inspection(folder / "net.safetensors", false), 4);
}

TEST(Inspect, AnIndexAndADiffusersFolder) {
  const TempFolder folder;
  const std::string unet = folder / "sd/unet";
  fs::create_directories(unet);
  fs::create_directories(folder / "sd/scheduler");
  const std::vector<float> values(2, 1.0f);
  for (const char* name : {"a", "b"}) {
    write_safetensors(unet + "/" + name + ".safetensors",
                      {{name, DType::kF32, {2}, std::as_bytes(std::span(values))}}, {});
  }
  spit(unet + "/m.safetensors.index.json",
       R"({"weight_map":{"a":"a.safetensors","b":"b.safetensors"}})");
  spit(unet + "/config.json", R"({"_class_name":"UNet2DConditionModel"})");
  spit(folder / "sd/scheduler/scheduler_config.json", R"({"_class_name":"LCMScheduler"})");
  spit(
      folder / "sd/model_index.json",
      R"({"_class_name":"StableDiffusionPipeline","unet":["diffusers","UNet2DConditionModel"],"scheduler":["diffusers","LCMScheduler"],)"
      R"("vae":["diffusers","AutoencoderKL"],"safety_checker":[null,null]})");
  const Inspection index = inspect_path(unet + "/m.safetensors.index.json");
  EXPECT_EQ(index.format, "safetensors index");
  EXPECT_EQ(index.tensors.at("F32").tensors, 2);
  const Inspection found = inspect_path(folder / "sd/");
  EXPECT_EQ(found.format, "diffusers folder");
  ASSERT_EQ(found.parts.size(), 2u);
  EXPECT_EQ(found.parts[1].format, "component of a diffusers folder");
  EXPECT_EQ(found.parts[1].parts.at(0).format, "safetensors index");
  EXPECT_THAT(found.problems, ElementsAre(HasSubstr("/vae: expected a folder vae, found none")));
}

TEST(Inspect, PicturesAndArchives) {
  const TempFolder folder;
  EXPECT_EQ(inspect_path(kGolden + "pictures/grey.png").format, "PNG");
  EXPECT_THAT(inspect_path(kGolden + "pictures/rgb.jpg").facts,
              Contains(Pair("size", "37x29, RGB")));
  fs::create_directories(folder / "set");
  fs::copy_file(kGolden + "pictures/square.png", folder / "set/a.png");
  EXPECT_EQ(inspect_path(folder / "set").format, "folder of pictures");
  spit(folder / "set/b.jpg", "broken");
  EXPECT_THAT(inspect_path(folder / "set").problems,
              ElementsAre(HasSubstr("b.jpg: expected a PNG or JPEG")));
  spit(folder / "set.zip", stored_zip({{"a.png", slurp(kGolden + "pictures/square.png")},
                                       {"dataset.json", R"({"labels":null})"}}));
  EXPECT_EQ(inspect_path(folder / "set.zip").format, "zip of pictures");
  spit(folder / "stats.npz", stored_zip({{"mu.npy", npy_of("(2,)", std::string(16, '\0'))},
                                         {"sigma.npy", npy_of("(2, 2)", std::string(32, '\0'))}}));
  const Inspection npz = inspect_path(folder / "stats.npz");
  EXPECT_EQ(npz.format, "npz");
  EXPECT_THAT(npz.facts, Contains(Pair("sigma", "<f8 [2, 2]")));
  EXPECT_THAT(npz.problems, IsEmpty());
}

TEST(Inspect, PicklesAreNamedAndNeverOpened) {
  const TempFolder folder;
  spit(folder / "a.bin", std::string("\x80\x02\x8a\x0a", 4) + "whatever");
  spit(folder / "b.pkl", std::string("\x80\x04", 2) + "cos\nsystem\n");
  spit(folder / "c.pth", stored_zip({{"archive/data.pkl", "cos\nsystem\n"}}));
  for (const char* name : {"a.bin", "b.pkl", "c.pth"}) {
    const Inspection found = inspect_path(folder / name);
    EXPECT_THAT(found.format, HasSubstr("a pickle")) << name;
    EXPECT_THAT(found.facts, Contains(Pair("note", HasSubstr("not opened")))) << name;
    EXPECT_THAT(found.facts, Contains(Pair("note", HasSubstr("tools/convert_")))) << name;
    EXPECT_THAT(found.problems, IsEmpty());
  }
}

TEST(Inspect, OtherThings) {
  const TempFolder folder;
  EXPECT_EQ(error_of([&] { inspect_path(folder / "none"); })->code, ErrorCode::kNotFound);
  spit(folder / "empty", "");
  EXPECT_THAT(inspect_path(folder / "empty").problems, ElementsAre(HasSubstr("found 0 bytes")));
  spit(folder / "a.json", "{\"b\":1}");
  EXPECT_THAT(inspect_path(folder / "a.json").facts, Contains(Pair("keys", "b")));
  spit(folder / "a.h5", std::string("\x89HDF\r\n\x1a\n", 8) + "and nothing more");
  EXPECT_THAT(inspect_path(folder / "a.h5").problems, ElementsAre(HasSubstr("HDF5 cannot open")));
  fs::create_directories(folder / "void");
  EXPECT_EQ(inspect_path(folder / "void").problems.size(), 1u);
  spit(folder / "void/manifest.json", "{\"format\":\"else\"}");
  EXPECT_THAT(inspect_path(folder / "void").problems, ElementsAre(HasSubstr("onestep-checkpoint")));
}

TEST(Inspect, ImageFilesAreReadToTheLastByteByVerifyToo) {
  const TempFolder folder;
  const std::string path = folder / "images.h5";
  const ImageFileInfo info{.count = 2,
                           .channels = 3,
                           .height = 1,
                           .width = 1,
                           .num_classes = 2,
                           .sha256 = {},
                           .source = "made",
                           .recipe = "here"};
  const std::vector<std::uint8_t> labels{1, 0}, pixels{1, 2, 3, 4, 5, 6};
  const auto offsets = create_image_file(path, info, labels);
  WorkFile(path).write_at(offsets.images, pixels.data(), pixels.size());
  EXPECT_EQ(error_of([&] { verify_path(path); })->code, ErrorCode::kCorrupt);  // not sealed yet
  Sha256 hash;
  hash.update(pixels.data(), pixels.size());
  hash.update(labels.data(), labels.size());
  const std::string digest = hash.finish();
  seal_image_file(path, digest);
  const auto parts = verify_path(path);
  ASSERT_EQ(parts.size(), 1u);
  EXPECT_EQ(parts[0].type, "image dataset");
  EXPECT_EQ(parts[0].digest, digest);
  EXPECT_EQ(parts[0].detail, "2 images of 3x1x1, 2 classes");
  const Inspection found = inspect_path(path);
  EXPECT_EQ(found.format, "image dataset");
  EXPECT_EQ(found.digest, digest);
  const std::string content = slurp(path);
  spit(path, with_flipped_bit(content, 8 * offsets.images + 1));
  EXPECT_EQ(error_of([&] { verify_path(path); })->code, ErrorCode::kCorrupt);
  EXPECT_THAT(inspect_path(path).problems, ElementsAre(HasSubstr(digest)));
}

}  // namespace
}  // namespace onestep
