#include "worker/models/discriminator_head.h"

#include <gtest/gtest.h>

#include <vector>

#include "worker/models/initialize.h"
#include "worker/models/model_factory.h"
#include "worker/tensors/flat_parameters.h"

namespace onestep {
namespace {

NetworkSpec small_network(const std::string& network_class) {
  NetworkSpec network;
  network.network_class = network_class;
  network.image_size = 8;
  network.pixel_unshuffle = 1;
  network.model_channels = 8;
  network.channel_mult = {1, 2};
  network.num_blocks = 1;
  network.channels_per_head = 8;
  network.label_dim = 3;
  return network;
}

// No parameter is zero, as some are at first.
void fill_all(torch::nn::Module& network) {
  for (auto& item : network.named_parameters()) fill_keyed_uniform(item.value(), 11, item.key(), 0.5);
}

Condition some_labels() { return {torch::tensor({2, 0}, torch::kInt64), {}}; }
const torch::Tensor& some_sigmas() {
  static const torch::Tensor t = torch::tensor({0.3f, 7.0f});
  return t;
}

// Down to one pixel from any side, and all of it is used.
TEST(DiscriminatorHead, ComesDownToOneLogitFromAnySide) {
  torch::manual_seed(1);
  for (const std::int64_t side : {1, 2, 3, 4, 7, 8, 16}) {
    DiscriminatorHead head(8, side, 5);
    auto features = torch::randn({3, 8, side, side}).requires_grad_(true);
    const auto logit = head(features);
    ASSERT_EQ(logit.sizes(), (std::vector<std::int64_t>{3})) << side;
    logit.sum().backward();
    EXPECT_TRUE((features.grad() != 0).any().item<bool>()) << side;
    for (const auto& item : head->named_parameters()) EXPECT_TRUE((item.value().grad() != 0).any().item<bool>()) << side << item.key();
  }
}

TEST(DiscriminatorHead, StartsFromItsSeed) {
  const DiscriminatorHead a(8, 7, 5), b(8, 7, 5), c(8, 7, 6);
  EXPECT_TRUE(torch::equal(a->parameters().front(), b->parameters().front()));
  EXPECT_FALSE(torch::equal(a->parameters().front(), c->parameters().front()));
}

class Bottleneck : public testing::TestWithParam<const char*> {};

// Nothing behind the middle moves it, the middle's last convolution does.
TEST_P(Bottleneck, IsWhatLeavesTheMiddle) {
  const auto denoiser = make_denoiser(small_network(GetParam()), 1);
  fill_all(denoiser->module());
  const torch::NoGradGuard no_grad;
  torch::manual_seed(2);
  const auto x = torch::randn({2, 1, 8, 8});
  const auto before = denoiser->bottleneck(x, some_sigmas(), some_labels());
  const auto image = denoiser->denoise(x, some_sigmas(), some_labels());
  EXPECT_EQ(before.sizes(), (std::vector<std::int64_t>{2, 16, 4, 4}));
  auto parameters = denoiser->module().named_parameters();
  parameters["model.dec.4x4_block0.conv1.weight"].mul_(2);
  EXPECT_TRUE(torch::equal(denoiser->bottleneck(x, some_sigmas(), some_labels()), before));
  EXPECT_FALSE(torch::equal(denoiser->denoise(x, some_sigmas(), some_labels()), image));
  parameters["model.dec.4x4_in1.conv1.weight"].mul_(2);
  EXPECT_FALSE(torch::equal(denoiser->bottleneck(x, some_sigmas(), some_labels()), before));
}

// The head's parameters lie behind the network's in the flat buffer, which stay where they were.
TEST_P(Bottleneck, TheHeadIsTheLastOfTheFlatBuffer) {
  const NetworkSpec network = small_network(GetParam());
  const auto plain = make_denoiser(network, 1), judged = make_denoiser(network, 1);
  BottleneckDiscriminator discriminator(*judged, 1);
  const FlatParameters plain_flat(plain->module(), 2, true), flat(judged->module(), 2, true);
  ASSERT_GT(flat.views().size(), plain_flat.views().size());
  for (std::size_t i = 0; i < flat.views().size(); ++i) {
    if (i < plain_flat.views().size()) {
      EXPECT_EQ(flat.views()[i].name, plain_flat.views()[i].name);
      EXPECT_EQ(flat.views()[i].offset, plain_flat.views()[i].offset);
    } else {
      EXPECT_TRUE(flat.views()[i].name.starts_with("discriminator.")) << flat.views()[i].name;
    }
  }
  auto x = torch::ones({2, 1, 8, 8}).requires_grad_(true);
  discriminator.logit(x, some_sigmas(), some_labels()).sum().backward();
  EXPECT_TRUE((x.grad() != 0).any().item<bool>());
}

INSTANTIATE_TEST_SUITE_P(Networks, Bottleneck, testing::Values("adm_unet", "song_unet"));

}  // namespace
}  // namespace onestep
