#include "worker/models/published_networks.h"

namespace onestep {
namespace {

TEST(PublishedNetworks, ImageNet64Adm) {
  expect_published("published_adm.safetensors", "imagenet64-cond-adm", 1,
                   {"x", "model.map_label.weight", "model.enc.64x64_conv.weight", "model.enc.16x16_block2.qkv.weight",
                    "model.dec.8x8_in0.affine.weight", "model.out_conv.weight"});
}

TEST(PublishedNetworks, Cifar10UnconditionalDdpmPlusPlus) {
  expect_published("published_edm.safetensors", "cifar10-uncond-vp", 1,
                   {"x", "model.map_layer1.weight", "model.enc.16x16_down.conv0.weight", "model.dec.8x8_in0.qkv.weight"});
}

TEST(PublishedNetworks, Cifar10ConditionalNcsnPlusPlus) {
  expect_published("published_edm.safetensors", "cifar10-cond-ve", 1,
                   {"x", "model.map_layer0.weight", "model.enc.8x8_aux_residual.weight", "model.dec.16x16_block4.qkv.weight"});
}

TEST(PublishedNetworks, Ffhq64DdpmPlusPlus) {
  expect_published("published_edm.safetensors", "ffhq64-vp", 1,
                   {"x", "model.map_layer0.weight", "model.enc.64x64_conv.weight", "model.dec.16x16_block4.qkv.weight"});
}

TEST(PublishedNetworks, Ffhq64NcsnPlusPlus) {
  expect_published("published_edm.safetensors", "ffhq64-ve", 1,
                   {"x", "model.map_layer1.weight", "model.enc.32x32_aux_residual.weight", "model.dec.8x8_in0.proj.weight"});
}

}  // namespace
}  // namespace onestep
