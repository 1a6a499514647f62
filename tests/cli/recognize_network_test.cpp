#include "cli/recognize_network.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "support/files.h"

namespace onestep {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

std::vector<TensorView> tensors_of(const NetworkLayout& layout, bool with_buffers) {
  std::vector<TensorView> tensors;
  for (const auto& [name, shape] : layout.parameters)
    tensors.push_back({name, DType::kF32, shape, {}});
  if (with_buffers) {
    for (const auto& [name, shape] : layout.buffers)
      tensors.push_back({name, DType::kF32, shape, {}});
  }
  return tensors;
}

EdmLayoutOptions cifar10(bool ncsn, std::int64_t classes) {
  EdmLayoutOptions options;
  options.resolutions = {32, 16, 8};
  options.level_channels = {256, 256, 256};
  options.attention_resolutions = {16};
  options.label_dim = classes;
  options.augment_dim = 9;
  if (ncsn) {
    options.noise_channels = 256;
    options.fourier = options.residual = true;
    options.filter = 4;
  }
  return options;
}

EdmLayoutOptions ffhq64(bool ncsn) {
  EdmLayoutOptions options = cifar10(ncsn, 0);
  options.resolutions = {64, 32, 16, 8};
  options.level_channels = {128, 256, 256, 256};
  return options;
}

EdmLayoutOptions imagenet64() {
  EdmLayoutOptions options;
  options.adm = true;
  options.resolutions = {64, 32, 16, 8};
  options.level_channels = {192, 384, 576, 768};
  options.model_channels = options.noise_channels = 192;
  options.emb_channels = 768;
  options.num_blocks = 3;
  options.attention_resolutions = {32, 16, 8};
  options.label_dim = 1000;
  return options;
}

// ImageNet-512 of Karras et al. 2024, without the training's uncertainty: 64 x 64 latents.
Edm2LayoutOptions edm2(std::int64_t width) {
  Edm2LayoutOptions options;
  options.level_channels = {width, 2 * width, 3 * width, 4 * width};
  options.noise_channels = width;
  options.emb_channels = 4 * width;
  options.logvar_channels = 0;
  return options;
}

// A single file of Stable Diffusion 1.x as its authors wrote it.
std::vector<TensorView> ldm_file() {
  std::vector<TensorView> tensors = tensors_of(under_ldm_names(sd_unet_layout({}), kLdmUnet, ldm_unet_modules({})), true);
  for (const NetworkLayout& part :
       {under_ldm_names(autoencoder_kl_layout(false), kLdmAutoencoder, ldm_vae_modules(4, 2)),
        clip_text_layout(768, 12, 0, "cond_stage_model.transformer.text_model.")}) {
    for (TensorView& tensor : tensors_of(part, true)) tensors.push_back(std::move(tensor));
  }
  for (const char* leftover : {"betas", "alphas_cumprod", "model_ema.decay"}) tensors.push_back({leftover, DType::kF32, {1000}, {}});
  return tensors;
}

struct Published {
  NetworkLayout layout;
  std::int64_t parameters;
  std::size_t tensors, buffers;
  const char* name;  // what recognition says
};

// The counts that are published or follow from the published modules: reference values of the
// networks' own tests too.
std::vector<Published> published_networks() {
  SdUnetLayoutOptions sd2, xl;
  sd2.context = 1024;
  sd2.linear_projection = true;
  xl.channels = {320, 640, 1280};
  xl.depths = {0, 2, 10};
  xl.mid_depth = 10;
  xl.context = 2048;
  xl.linear_projection = true;
  xl.add_embedding = 2816;
  return {{edm_layout(cifar10(false, 10)), 55'735'299, 419, 8,
           "EDM song_unet (DDPM++), 32x32, 3 channels, 10 classes, augment_dim 9"},
          {edm_layout(cifar10(false, 0)), 55'733'891, 417, 8,
           "EDM song_unet (DDPM++), 32x32, 3 channels, unconditional, augment_dim 9"},
          {edm_layout(cifar10(true, 10)), 56'400'643, 423, 11,
           "EDM song_unet (NCSN++), 32x32, 3 channels, 10 classes, augment_dim 9"},
          {edm_layout(cifar10(true, 0)), 56'397'827, 421, 11, "EDM song_unet (NCSN++), 32x32"},
          {edm_layout(ffhq64(false)), 61'805'571, 541, 12, "EDM song_unet (DDPM++), 64x64"},
          {edm_layout(ffhq64(true)), 62'761'091, 547, 16, "EDM song_unet (NCSN++), 64x64"},
          {edm_layout(imagenet64()), 295'899'267, 541, 12,
           "EDM adm_unet (ADM), 64x64, 3 channels, 1000 classes"},
          {sd_unet_layout({}), 859'520'964, 686, 0, "Stable Diffusion 1.x UNet, context 768"},
          {sd_unet_layout(sd2), 865'910'724, 686, 0, "Stable Diffusion 2.x UNet, context 1024"},
          {sd_unet_layout(xl), 2'567'463'684, 1680, 0, "Stable Diffusion XL UNet, context 2048"},
          {autoencoder_kl_layout(false), 83'653'863, 248, 0, "Stable Diffusion autoencoder"},
          {clip_text_layout(768, 12, 0, "text_model."), 123'060'480, 196, 1,
           "CLIP text encoder ViT-L/14"},
          {clip_text_layout(1024, 23, 0, ""), 340'387'840, 372, 1,
           "CLIP text encoder, 23 layers of 1024"},
          {clip_text_layout(1280, 32, 1280, "text_model."), 694'659'840, 517, 1,
           "CLIP text encoder, 32 layers of 1280"},
          {edm2_layout(edm2(128)), 124'713'125, 198, 2, "EDM2 UNet, 64x64, 4 channels, 128 wide, 1000 classes"},
          {edm2_layout(edm2(448)), 1'523'164'645, 198, 2, "EDM2 UNet, 64x64, 4 channels, 448 wide, 1000 classes"},
          {inception_layout(), 23'850'960, 284, 282, "Inception v3"},
          {vgg16_layout(), 14'714'688, 26, 0, "VGG16"},
          {lpips_layout(), 1'472, 5, 0, "LPIPS v0.1"}};
}

TEST(NetworkLayouts, CountsAreThePublishedOnes) {
  for (const Published& network : published_networks()) {
    EXPECT_EQ(network.layout.num_parameters(), network.parameters) << network.name;
    EXPECT_EQ(network.layout.parameters.size(), network.tensors) << network.name;
    EXPECT_EQ(network.layout.buffers.size(), network.buffers) << network.name;
  }
}

TEST(RecognizeNetwork, EveryPublishedNetworkByItsNamesAndShapes) {
  for (const Published& network : published_networks()) {
    for (const bool with_buffers : {true, false}) {
      // Without its buffers an NCSN++ does not say that it is one by its frequencies, but still by
      // its residual encoder.
      const RecognizedNetwork found = recognize_network(tensors_of(network.layout, with_buffers));
      EXPECT_THAT(found.name, HasSubstr(network.name));
      EXPECT_EQ(found.num_parameters, network.parameters) << network.name;
      EXPECT_THAT(found.problems, IsEmpty()) << network.name;
    }
  }
}

// EDM2's authors give 124.7, 280.2, 497.8, 777.5, 1119.3 and 1523.2 million.
TEST(NetworkLayouts, CountsOfEdm2AreThePublishedOnes) {
  for (const auto& [width, millions] : {std::pair{128, 124.7}, {192, 280.2}, {256, 497.8}, {320, 777.5}, {384, 1119.3}, {448, 1523.2}}) {
    EXPECT_NEAR(static_cast<double>(edm2_layout(edm2(width)).num_parameters()) / 1e6, millions, 0.05) << width;
  }
}

// Names that diffusers' own converters know: tools/golden/make_ldm_names_golden.py.
TEST(NetworkLayouts, LdmNamesAreThoseThatDiffusersConverts) {
  const auto golden = nlohmann::json::parse(slurp(std::string(ONESTEP_SOURCE_DIR) + "/tests/golden/ldm_names.json"));
  const auto names_of = [](const NetworkLayout& layout) {
    std::set<std::string> names;
    for (const auto& [name, shape] : layout.parameters) names.insert(name);
    return names;
  };
  const auto keys_of = [&](const char* part) {
    std::set<std::string> names;
    for (const auto& [name, ours] : golden.at(part).items()) names.insert(name);
    return names;
  };
  EXPECT_EQ(names_of(under_ldm_names(sd_unet_layout({}), kLdmUnet, ldm_unet_modules({}))), keys_of("unet"));
  EXPECT_EQ(names_of(under_ldm_names(autoencoder_kl_layout(false), kLdmAutoencoder, ldm_vae_modules(4, 2))), keys_of("vae"));
}

TEST(RecognizeNetwork, ASingleFileIsComparedPartByPart) {
  auto tensors = ldm_file();
  const RecognizedNetwork whole = recognize_network(tensors);
  EXPECT_EQ(whole.name, "single file under LDM's names: Stable Diffusion 1.x UNet, context 768, autoencoder, text encoder");
  EXPECT_EQ(whole.num_parameters, 859'520'964 + 83'653'863 + 123'060'480);
  EXPECT_THAT(whole.problems, IsEmpty());
  std::erase_if(tensors, [](const TensorView& tensor) {
    return tensor.name == "model.diffusion_model.output_blocks.5.2.conv.bias" ||
           tensor.name == "first_stage_model.decoder.mid.attn_1.proj_out.weight";
  });
  for (TensorView& tensor : tensors) {
    if (tensor.name == "cond_stage_model.transformer.text_model.encoder.layers.3.mlp.fc1.weight") tensor.shape = {768, 3072};
  }
  tensors.push_back({"model.diffusion_model.input_blocks.99.0.weight", DType::kF32, {1}, {}});
  EXPECT_THAT(recognize_network(tensors).problems,
              UnorderedElementsAre("model.diffusion_model.output_blocks.5.2.conv.bias: expected [1280], found none",
                                   "first_stage_model.decoder.mid.attn_1.proj_out.weight: expected [512,512,1,1], found none",
                                   "cond_stage_model.transformer.text_model.encoder.layers.3.mlp.fc1.weight: expected [3072,768], "
                                   "found [768,3072]",
                                   "model.diffusion_model.input_blocks.99.0.weight: expected no such tensor, found [1]"));
}

TEST(RecognizeNetwork, ASingleFileOfXlAndOneOfTheUnetAlone) {
  SdUnetLayoutOptions xl;
  xl.channels = {320, 640, 1280};
  xl.depths = {0, 2, 10};
  xl.mid_depth = 10;
  xl.context = 2048;
  xl.linear_projection = true;
  xl.add_embedding = 2816;
  auto tensors = tensors_of(under_ldm_names(sd_unet_layout(xl), kLdmUnet, ldm_unet_modules({3, 2, {true, true, false}})), true);
  tensors.push_back({"conditioner.embedders.1.model.ln_final.weight", DType::kF32, {1280}, {}});
  const RecognizedNetwork found = recognize_network(tensors);
  EXPECT_EQ(found.name, "single file under LDM's names: Stable Diffusion XL UNet, context 2048");
  EXPECT_EQ(found.num_parameters, 2'567'463'684);
  EXPECT_THAT(found.problems, IsEmpty());
}

TEST(RecognizeNetwork, Edm2IsComparedWithAndWithoutItsUncertainty) {
  Edm2LayoutOptions options = edm2(128);
  options.logvar_channels = 128;
  auto tensors = tensors_of(edm2_layout(options), true);
  EXPECT_THAT(recognize_network(tensors).problems, IsEmpty());
  std::erase_if(tensors, [](const TensorView& tensor) { return tensor.name == "unet.dec.16x16_block3.attn_proj.weight"; });
  EXPECT_THAT(recognize_network(tensors).problems,
              ElementsAre("unet.dec.16x16_block3.attn_proj.weight: expected [384,384,1,1], found none"));
}

TEST(RecognizeNetwork, OldNamesOfTheAutoencoder) {
  const RecognizedNetwork found = recognize_network(tensors_of(autoencoder_kl_layout(true), false));
  EXPECT_THAT(found.name, HasSubstr("before 2023"));
  EXPECT_THAT(found.problems, IsEmpty());
}

TEST(RecognizeNetwork, MissingUnexpectedAndMisshapenTensorsAreNamed) {
  auto tensors = tensors_of(edm_layout(cifar10(false, 10)), true);
  std::erase_if(tensors, [](const TensorView& tensor) {
    return tensor.name == "model.dec.8x8_in0.qkv.weight";
  });
  for (TensorView& tensor : tensors) {
    if (tensor.name == "model.enc.16x16_block2.conv1.weight") tensor.shape = {256, 256, 1, 1};
    if (tensor.name == "model.enc.16x16_down.conv0.resample_filter") tensor.shape = {2, 2};
  }
  tensors.push_back({"model.enc.8x8_block9.more", DType::kF32, {1}, {}});
  const RecognizedNetwork found = recognize_network(tensors);
  EXPECT_THAT(found.name, HasSubstr("DDPM++"));
  EXPECT_THAT(found.problems,
              Contains("model.dec.8x8_in0.qkv.weight: expected [768,256,1,1], found none"));
  EXPECT_THAT(
      found.problems,
      Contains("model.enc.16x16_block2.conv1.weight: expected [256,256,3,3], found [256,256,1,1]"));
  EXPECT_THAT(found.problems,
              Contains("model.enc.8x8_block9.more: expected no such tensor, found [1]"));
  EXPECT_EQ(found.problems.size(), 4u);
}

TEST(RecognizeNetwork, StrangersAndHostileShapesHaveNoName) {
  EXPECT_EQ(recognize_network({}).name, "");
  EXPECT_EQ(recognize_network({{"weight", DType::kF32, {2}, {}}}).name, "");
  EXPECT_EQ(
      recognize_network({{"model.diffusion_model.x", DType::kF32, {2, 3}, {}}}).num_parameters, 6);
  constexpr std::int64_t kHuge = std::int64_t{1} << 62;
  std::vector<TensorView> hostile = {
      {"model.map_layer0.weight", DType::kF32, {kHuge, kHuge}, {}},
      {"model.enc.99999999999999999999x1_block0.conv0.weight", DType::kF32, {kHuge}, {}}};
  static_cast<void>(recognize_network(hostile));
}

}  // namespace
}  // namespace onestep
