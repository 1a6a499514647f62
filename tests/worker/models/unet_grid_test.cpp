// The networks by the device's kernels, run by their twins on the CPU, against the ordinary networks.
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "worker/models/initialize.h"
#include "worker/models/model_factory.h"
#include "worker/models/preconditioners.h"

namespace onestep {
namespace {

NetworkSpec small(const char* network_class, const char* encoder, std::vector<std::int64_t> filter) {
  NetworkSpec spec;
  spec.network_class = network_class;
  spec.image_size = 8;
  spec.image_channels = 3;
  spec.pixel_unshuffle = 1;
  spec.model_channels = 16;
  spec.channel_mult = {1, 2};
  spec.num_blocks = 1;
  spec.attention_resolutions = {4};
  spec.channels_per_head = 16;
  spec.label_dim = 10;
  if (spec.network_class == "song_unet") {
    spec.encoder_type = encoder;
    spec.embedding_type = spec.encoder_type == "residual" ? "fourier" : "positional";
    spec.resample_filter = std::move(filter);
  }
  return spec;
}

struct Outcome {
  torch::Tensor output, gradient_x;
  std::map<std::string, torch::Tensor> gradients;
};

Outcome run(const NetworkSpec& spec, bool grid, torch::ScalarType dtype) {
  at::set_num_threads(1);
  const auto denoiser = make_denoiser(spec, 0);
  auto& net = dynamic_cast<Preconditioner&>(*denoiser);
  torch::manual_seed(1);
  {
    const torch::NoGradGuard no_grad;
    for (auto& item : net.named_parameters()) {
      const auto values = torch::randn(item.value().sizes());
      const auto fan_in = static_cast<double>(item.value().numel() / item.value().size(0));
      const bool is_gain = item.value().dim() == 1 && item.key().ends_with("weight");
      // bfloat16 holds these exactly: the two sides have the same weights.
      item.value().copy_((is_gain ? 1 + 0.1 * values : values * (item.value().dim() == 1 ? 0.1 : 1 / std::sqrt(fan_in))).to(torch::kBFloat16));
    }
  }
  net.cast_weights(dtype);
  net.use_grid_kernels(grid);
  const auto x = torch::randn({2, 3, 8, 8}).requires_grad_(true);
  Condition condition;
  condition.labels = torch::tensor({3, -1}, torch::kInt64);
  const auto y = net.denoise(x, torch::tensor({0.5f, 7.0f}), condition);
  (y * torch::randn(y.sizes())).sum().backward();
  Outcome outcome{y.detach(), x.grad(), {}};
  for (auto& item : net.named_parameters()) {
    if (item.value().grad().defined()) outcome.gradients[item.key()] = item.value().grad().to(torch::kFloat32);
  }
  return outcome;
}

double relative_distance(const torch::Tensor& a, const torch::Tensor& b) {
  return ((a - b).to(torch::kFloat64).norm() / b.to(torch::kFloat64).norm().clamp_min(1e-9)).item<double>();
}

class UnetOnGrid : public testing::TestWithParam<NetworkSpec> {};

// The same sums in another order: fp32 rounding, through two levels of blocks. All gradients are there.
TEST_P(UnetOnGrid, EqualsTheOrdinaryNetwork) {
  const Outcome grid = run(GetParam(), true, torch::kFloat32), plain = run(GetParam(), false, torch::kFloat32);
  EXPECT_LT(relative_distance(grid.output, plain.output), 1e-5);
  EXPECT_LT(relative_distance(grid.gradient_x, plain.gradient_x), 1e-5);
  ASSERT_EQ(grid.gradients.size(), plain.gradients.size());
  for (const auto& [name, gradient] : plain.gradients) EXPECT_LT(relative_distance(grid.gradients.at(name), gradient), 1e-4) << name;
}

// bfloat16 weights and activations against fp32 throughout: some roundings of 2^-9 a layer, averaged over many values.
TEST_P(UnetOnGrid, InBfloat16WithinItsRounding) {
  const Outcome grid = run(GetParam(), true, torch::kBFloat16), plain = run(GetParam(), false, torch::kFloat32);
  EXPECT_LT(relative_distance(grid.output, plain.output), 2e-2);
  EXPECT_LT(relative_distance(grid.gradient_x, plain.gradient_x), 4e-2);
  double total = 0, norm = 0;
  for (const auto& [name, gradient] : plain.gradients) {
    total += (grid.gradients.at(name) - gradient).square().sum().item<double>();
    norm += gradient.square().sum().item<double>();
  }
  EXPECT_LT(std::sqrt(total / norm), 4e-2);
}

INSTANTIATE_TEST_SUITE_P(Networks, UnetOnGrid,
                         testing::Values(small("song_unet", "standard", {1, 1}), small("song_unet", "residual", {1, 3, 3, 1}),
                                         small("adm_unet", "", {})));

}  // namespace
}  // namespace onestep
