#include "worker/run/lpips_distance.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/files.h"
#include "support/keyed_feature_nets.h"
#include "support/temp_folder.h"
#include "worker/models/raw_layers.h"
#include "worker/models/tiny_autoencoder.h"
#include "worker/models/vgg_lpips.h"
#include "worker/tensors/flat_parameters.h"

namespace onestep {
namespace {

using ::testing::HasSubstr;

TEST(LoadDistance, LpipsFromTwoFilesIsTheNetwork) {
  const TempFolder folder;
  const KeyedWeights weights(lpips_tensors());
  const std::vector<TensorView> trunk(weights.views.begin(), weights.views.end() - 5);
  const std::vector<TensorView> lin(weights.views.end() - 5, weights.views.end());
  write_safetensors(folder / "vgg16.safetensors", trunk, {});
  write_safetensors(folder / "lin.safetensors", lin, {});
  DistillSpec spec;
  spec.distance = "lpips";
  spec.lpips.resize = 0;
  spec.lpips.weights = {folder / "vgg16.safetensors", folder / "lin.safetensors"};
  const LoadedDistance loaded = load_distance(spec, false);
  EXPECT_EQ(loaded.sha256.size(), 64u);
  auto x = torch::rand({2, 3, 16, 16}).requires_grad_(true);
  const auto y = torch::rand({2, 3, 16, 16});
  const auto distance = (*loaded.distance)(x, y);
  EXPECT_TRUE(torch::equal(distance, VggLpips(weights.views, "keyed", spec.lpips)(x, y)));
  distance.sum().backward();
  EXPECT_GT(x.grad().norm().item<float>(), 0);

  spec.lpips.weights.pop_back();
  EXPECT_THAT(error_of([&] { load_distance(spec, false); })->message, HasSubstr("vgg16.safetensors: 5 tensors"));
}

TEST(LoadDistance, LatentsAreComparedAsTheImagesTheyDecodeTo) {
  const TempFolder folder;
  const KeyedWeights weights(lpips_tensors());
  write_safetensors(folder / "lpips.safetensors", weights.views, {});
  TinyAutoencoderConfig config;
  config.encoder_block_out_channels = config.decoder_block_out_channels = {8, 8};
  config.num_encoder_blocks = config.num_decoder_blocks = {1, 1};
  TinyAutoencoder decoder(config);
  initialize_raw_layers(*decoder, 5, "");
  write_safetensors(folder / "diffusion_pytorch_model.safetensors", named_tensors(*decoder), {});
  spit(folder / "config.json", to_diffusers_json(config).dump());
  DistillSpec spec;
  spec.distance = "lpips";
  spec.lpips.resize = 0;
  spec.lpips.weights = {folder / "lpips.safetensors"};
  spec.decoder = folder.path();
  const LoadedDistance loaded = load_distance(spec, false);
  EXPECT_EQ(loaded.decoder_sha256.size(), 64u);
  auto x = torch::rand({2, 4, 16, 16}).requires_grad_(true);
  const auto y = torch::rand({2, 4, 16, 16});
  const auto distance = (*loaded.distance)(x, y);
  EXPECT_TRUE(torch::equal(distance, VggLpips(weights.views, "keyed", spec.lpips)(decoder->images_of(x), decoder->images_of(y))));
  distance.sum().backward();
  EXPECT_GT(x.grad().norm().item<float>(), 0);

  auto other = to_diffusers_json(config);
  other["_class_name"] = "VQModel";
  spit(folder / "config.json", other.dump());
  EXPECT_THAT(error_of([&] { load_distance(spec, false); })->message,
              HasSubstr("_class_name: expected AutoencoderKL or AutoencoderTiny, found \"VQModel\""));
}

TEST(LoadDistance, L2NeedsNoFile) {
  const DistillSpec l2;
  const LoadedDistance loaded = load_distance(l2, false);
  EXPECT_EQ(loaded.sha256, "");
  EXPECT_EQ((*loaded.distance)(torch::ones({1, 1, 2, 2}), torch::zeros({1, 1, 2, 2})).item<float>(), 1);
}

}  // namespace
}  // namespace onestep
