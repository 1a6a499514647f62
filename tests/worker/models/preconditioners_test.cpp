#include "worker/models/preconditioners.h"

#include <gtest/gtest.h>

#include <cmath>

#include "worker/models/model_factory.h"

namespace onestep {
namespace {

NetworkSpec small(const std::string& preconditioner) {
  NetworkSpec spec;
  spec.network_class = "song_unet";
  spec.preconditioner = preconditioner;
  spec.image_size = 4;
  spec.pixel_unshuffle = 1;
  spec.model_channels = 8;
  spec.num_blocks = 1;
  return spec;
}

const EdmSchedule& schedule_of(const Denoiser& denoiser) { return dynamic_cast<const EdmSchedule&>(denoiser.schedule()); }

// Table 1's ranges, six digits given.
TEST(Preconditioners, LevelsAreThePublishedOnes) {
  const auto vp = make_denoiser(small("vp"), 0), ve = make_denoiser(small("ve"), 0), iddpm = make_denoiser(small("iddpm"), 0);
  EXPECT_NEAR(schedule_of(*vp).levels().min, 0.0010005, 1e-7);
  EXPECT_NEAR(schedule_of(*vp).levels().max, 152.167, 1e-3);
  EXPECT_EQ(schedule_of(*ve).levels().min, 0.02);
  EXPECT_EQ(schedule_of(*ve).levels().max, 100);
  EXPECT_NEAR(schedule_of(*iddpm).levels().min, 0.0064254, 1e-7);
  EXPECT_NEAR(schedule_of(*iddpm).levels().max, 20291.2, 0.1);
  EXPECT_EQ(schedule_of(*iddpm).levels().allowed.size(), 1000u);
  EXPECT_EQ(iddpm->module().named_buffers()["u"].sizes(), (std::vector<std::int64_t>{1001}));
  EXPECT_EQ(iddpm->module().named_buffers()["u"][1000].item<float>(), 0);
}

// All are EDM's formulation: alpha 1, sigma t, and no data term in the weight but under "edm".
TEST(Preconditioners, SchedulesExplodeTheVariance) {
  const auto t = torch::tensor({0.5f, 4.0f});
  for (const char* name : {"edm", "vp", "ve", "iddpm"}) {
    const auto net = make_denoiser(small(name), 0);
    EXPECT_TRUE(torch::equal(net->schedule().alpha(t), torch::ones({2}))) << name;
    EXPECT_TRUE(torch::equal(net->schedule().sigma(t), t)) << name;
    const float data = std::string(name) == "edm" ? 4.0f : 0.0f;
    EXPECT_TRUE(torch::allclose(net->schedule().denoising_weight(t), torch::tensor({4.0f, 0.0625f}) + data)) << name;
    EXPECT_EQ(net->prediction(), Prediction::kX0);
  }
}

// iDDPM's networks predict six channels of which the first three count; noise levels go to the nearest u.
TEST(Preconditioners, IddpmReadsTheFirstHalfOfTheChannels) {
  const auto net = make_denoiser(small("iddpm"), 3);
  auto parameters = net->module().named_parameters();
  EXPECT_EQ(parameters["model.dec.4x4_aux_conv.weight"].size(0), 2);
  torch::manual_seed(1);
  const auto x = torch::randn({1, 1, 4, 4});
  const auto sigma = torch::tensor({1.3f});
  torch::NoGradGuard no_grad;
  parameters["model.dec.4x4_aux_conv.bias"].copy_(torch::tensor({0.25f, 100.0f}));
  const auto y = net->denoise(x, sigma, {torch::tensor({1}), {}});
  EXPECT_TRUE(torch::allclose(y, x - 1.3 * 0.25, 1e-3, 1e-2));  // the last convolution's weights start near zero
  const auto& levels = schedule_of(*net);
  const double nearest = levels.nearest(1.3);
  EXPECT_NEAR(nearest, 1.3, 0.01);
  EXPECT_EQ(levels.nearest(nearest), nearest);
  EXPECT_EQ(schedule_of(*make_denoiser(small("edm"), 0)).nearest(1.3), 1.3);
}

TEST(Preconditioners, NoLabelIsAZeroVector) {
  const auto net = make_denoiser(small("edm"), 4);
  torch::NoGradGuard no_grad;
  for (auto& item : net->module().named_parameters()) {
    if (item.key().find("conv1") != std::string::npos || item.key().find("aux_conv") != std::string::npos) {
      item.value().mul_(1e5);  // the last convolutions start near zero
    }
  }
  torch::manual_seed(2);
  const auto x = torch::randn({2, 1, 4, 4});
  const auto t = torch::tensor({1.0f, 2.0f});
  const auto none = net->denoise(x, t, {});
  EXPECT_TRUE(torch::equal(none, net->denoise(x, t, {torch::tensor({-1, -1}), {}})));
  const auto mixed = net->denoise(x, t, {torch::tensor({3, -1}), {}});
  EXPECT_FALSE(torch::allclose(mixed[0], none[0]));
  EXPECT_TRUE(torch::allclose(mixed[1], none[1]));
}

}  // namespace
}  // namespace onestep
