#include "worker/models/published_networks.h"

namespace onestep {
namespace {

TEST(PublishedNetworks, Cifar10DdpmPlusPlus) {
  expect_published("published_edm.safetensors", "cifar10-cond-vp", 2,
          {"x", "model.map_layer0.weight", "model.enc.32x32_conv.weight", "model.dec.16x16_block4.qkv.weight"});
}

TEST(PublishedNetworks, Cifar10NcsnPlusPlus) {
  expect_published("published_edm.safetensors", "cifar10-uncond-ve", 2,
          {"x", "model.map_layer1.weight", "model.enc.16x16_aux_residual.weight", "model.dec.8x8_in0.proj.weight"});
}

}  // namespace
}  // namespace onestep
