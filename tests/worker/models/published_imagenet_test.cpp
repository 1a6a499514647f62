#include "worker/models/published_networks.h"

namespace onestep {
namespace {

TEST(PublishedNetworks, ImageNet64Adm) { expect_published("published_adm.safetensors", "imagenet64-cond-adm", 1, {}); }

}  // namespace
}  // namespace onestep
