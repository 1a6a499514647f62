#include "worker/models/model_factory.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "common/config.h"
#include "common/error.h"

namespace onestep {
namespace {

NetworkSpec published(const std::string& name) {
  const std::string path = ONESTEP_SOURCE_DIR "/configs/networks/" + name + ".json";
  return network_spec_from_json(read_json_file(path), path);
}

struct Published {
  const char* name;
  std::int64_t parameters;
  std::size_t tensors, buffers;
};

// Counted on the files that EDM publishes.
const Published kPublished[] = {
    {"cifar10-cond-vp", 55'735'299, 419, 8},    {"cifar10-uncond-vp", 55'733'891, 417, 8},
    {"cifar10-cond-ve", 56'400'643, 423, 11},   {"cifar10-uncond-ve", 56'397'827, 421, 11},
    {"ffhq64-vp", 61'805'571, 541, 12},         {"ffhq64-ve", 62'761'091, 547, 16},
    {"imagenet64-cond-adm", 295'899'267, 541, 12}};

class PublishedTest : public testing::TestWithParam<Published> {};

TEST_P(PublishedTest, HasThePublishedTensors) {
  const auto net = make_denoiser(published(GetParam().name), 0);
  std::int64_t parameters = 0;
  for (const auto& parameter : net->module().parameters()) parameters += parameter.numel();
  EXPECT_EQ(parameters, GetParam().parameters);
  EXPECT_EQ(net->module().parameters().size(), GetParam().tensors);
  EXPECT_EQ(net->module().buffers().size(), GetParam().buffers);
  for (const auto& item : net->module().named_parameters()) EXPECT_TRUE(item.key().starts_with("model.")) << item.key();
}

INSTANTIATE_TEST_SUITE_P(Networks, PublishedTest, testing::ValuesIn(kPublished),
                         [](const auto& network) {
                           std::string name = network.param.name;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(ModelFactory, EveryPublishedFileIsTested) {
  std::set<std::string> files, tested;
  for (const auto& entry : std::filesystem::directory_iterator(ONESTEP_SOURCE_DIR "/configs/networks")) {
    files.insert(entry.path().stem().string());
  }
  for (const Published& network : kPublished) tested.insert(network.name);
  EXPECT_EQ(files, tested);
}

// The second word of each entry's name, in order: "32x32_conv" ... as published.
std::vector<std::string> entries(const Denoiser& net, const std::string& part) {
  std::vector<std::string> names;
  for (const auto& item : const_cast<Denoiser&>(net).module().named_children()["model"]->named_children()[part]->named_children()) {
    names.push_back(item.key());
  }
  return names;
}

TEST(ModelFactory, Cifar10EntriesAreThePublishedOnes) {
  using Names = std::vector<std::string>;
  const auto ve = make_denoiser(published("cifar10-cond-ve"), 0);
  EXPECT_EQ(entries(*ve, "enc"),
            (Names{"32x32_conv",     "32x32_block0",       "32x32_block1", "32x32_block2", "32x32_block3", "16x16_down",
                   "16x16_aux_residual", "16x16_block0",   "16x16_block1", "16x16_block2", "16x16_block3", "8x8_down",
                   "8x8_aux_residual",   "8x8_block0",     "8x8_block1",   "8x8_block2",   "8x8_block3"}));
  EXPECT_EQ(entries(*ve, "dec"),
            (Names{"8x8_in0",      "8x8_in1",      "8x8_block0",   "8x8_block1",   "8x8_block2",   "8x8_block3",
                   "8x8_block4",   "16x16_up",     "16x16_block0", "16x16_block1", "16x16_block2", "16x16_block3",
                   "16x16_block4", "32x32_up",     "32x32_block0", "32x32_block1", "32x32_block2", "32x32_block3",
                   "32x32_block4", "32x32_aux_norm", "32x32_aux_conv"}));
  const auto parameters = ve->module().named_parameters();
  const auto shape = [&](const char* name) { return parameters[name].sizes().vec(); };
  using Shape = std::vector<std::int64_t>;
  EXPECT_EQ(shape("model.enc.32x32_conv.weight"), (Shape{128, 3, 3, 3}));
  EXPECT_EQ(shape("model.enc.16x16_aux_residual.weight"), (Shape{256, 3, 3, 3}));
  EXPECT_EQ(shape("model.enc.8x8_aux_residual.weight"), (Shape{256, 256, 3, 3}));
  EXPECT_EQ(shape("model.dec.32x32_block4.conv0.weight"), (Shape{256, 384, 3, 3}));
  EXPECT_EQ(shape("model.dec.32x32_aux_conv.weight"), (Shape{3, 256, 3, 3}));
  EXPECT_EQ(shape("model.map_label.weight"), (Shape{256, 10}));
  EXPECT_EQ(shape("model.map_augment.weight"), (Shape{256, 9}));
  EXPECT_TRUE(parameters.contains("model.map_label.bias"));
  EXPECT_FALSE(parameters.contains("model.map_augment.bias"));
  EXPECT_TRUE(parameters.contains("model.enc.16x16_block0.qkv.weight"));
  EXPECT_FALSE(parameters.contains("model.enc.8x8_block0.qkv.weight"));
  EXPECT_FALSE(parameters.contains("model.dec.16x16_block3.qkv.weight"));
  EXPECT_TRUE(parameters.contains("model.dec.16x16_block4.qkv.weight"));
  EXPECT_TRUE(parameters.contains("model.dec.8x8_in0.qkv.weight"));
  const auto buffers = ve->module().named_buffers();
  EXPECT_EQ(buffers["model.map_noise.freqs"].sizes(), (Shape{128}));
  EXPECT_EQ(buffers["model.enc.8x8_aux_residual.resample_filter"].sizes(), (Shape{1, 1, 4, 4}));
}

TEST(ModelFactory, AdmKeepsThePublishedBuffers) {
  NetworkSpec spec;
  spec.image_size = 8;
  spec.pixel_unshuffle = 1;
  spec.channel_mult = {1, 1};
  const auto buffers = make_denoiser(spec, 0)->module().named_buffers();
  std::vector<std::string> names;
  for (const auto& item : buffers) names.push_back(item.key());
  EXPECT_EQ(names, (std::vector<std::string>{
                       "model.enc.4x4_down.conv0.resample_filter", "model.enc.4x4_down.skip.resample_filter",
                       "model.dec.8x8_up.conv0.resample_filter", "model.dec.8x8_up.skip.resample_filter"}));
  for (const auto& item : buffers) EXPECT_TRUE(torch::equal(item.value(), torch::full({1, 1, 2, 2}, 0.25f)));
}

TEST(ModelFactory, RefusesAnUnknownPreconditioner) {
  NetworkSpec spec;
  spec.preconditioner = "edm2";
  EXPECT_THROW(make_denoiser(spec, 0), Error);
}

}  // namespace
}  // namespace onestep
