#include "worker/models/unet_block.h"

#include <gtest/gtest.h>

#include "worker/models/adm_unet.h"
#include "worker/models/model_factory.h"

namespace onestep {
namespace {

torch::Tensor random_image(std::vector<std::int64_t> shape) {
  return torch::randn(shape).contiguous(torch::MemoryFormat::ChannelsLast);
}

UnetConvOptions resampling(Resampling mode, std::vector<std::int64_t> filter) {
  UnetConvOptions options;
  options.in_channels = options.out_channels = 3;
  options.kernel = 0;
  options.resampling = mode;
  options.filter = std::move(filter);
  return options;
}

TEST(UnetConv, BoxFilterIsTheMeanAndTheNearestNeighbour) {
  torch::manual_seed(1);
  const auto x = random_image({2, 3, 6, 4});
  UnetConv down(resampling(Resampling::kDown, {1, 1})), up(resampling(Resampling::kUp, {1, 1}));
  EXPECT_TRUE(torch::allclose(down(x), torch::avg_pool2d(x, 2)));
  EXPECT_TRUE(torch::equal(up(x), x.repeat_interleave(2, 2).repeat_interleave(2, 3)));
  EXPECT_TRUE(down->parameters().empty());
  EXPECT_EQ(down->buffers().size(), 1u);
}

// [1,3,3,1] by hand, in one dimension at a time: down averages 4 neighbours with weights 1, 3, 3, 1; up puts 3/4 of the near and
// 1/4 of the far neighbour.
TEST(UnetConv, WideFilterWeighsFourNeighbours) {
  torch::manual_seed(2);
  const auto x = torch::randn({1, 3, 8, 8});
  const auto padded = torch::constant_pad_nd(x, {1, 1, 1, 1});
  const auto along = [](const torch::Tensor& t, std::int64_t dim) {
    const auto at = [&](std::int64_t i) { return t.slice(dim, i, t.size(dim) - 3 + i, 2); };
    return (at(0) + 3 * at(1) + 3 * at(2) + at(3)) / 8;
  };
  UnetConv down(resampling(Resampling::kDown, {1, 3, 3, 1})), up(resampling(Resampling::kUp, {1, 3, 3, 1}));
  EXPECT_TRUE(torch::allclose(down(x), along(along(padded, 2), 3), 1e-5, 1e-6));
  const auto y = up(x);
  EXPECT_EQ(y.sizes(), (std::vector<std::int64_t>{1, 3, 16, 16}));
  const auto pixel = [&](int i, int j) { return x[0][0][i][j].item<double>(); };
  EXPECT_NEAR(y[0][0][4][6].item<double>(),
              (9 * pixel(2, 3) + 3 * pixel(1, 3) + 3 * pixel(2, 2) + pixel(1, 2)) / 16, 1e-6);
}

// Bytes that tensors hold, between construction and now, on this thread.
class LiveBytes final : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void*, std::int64_t size, std::size_t, std::size_t, c10::Device) override { bytes += size; }
  [[nodiscard]] bool memoryProfilingEnabled() const override { return true; }
  std::int64_t bytes = 0;
};

TEST(UnetBlock, RecomputingKeepsFewerBytes) {
  NetworkSpec spec;
  spec.image_size = 28;
  torch::manual_seed(3);
  const auto x = torch::randn({8, 1, 28, 28});
  const auto t = torch::full({8}, 1.0f);
  std::vector<std::int64_t> kept;
  for (const bool recompute : {false, true}) {
    const auto net = make_denoiser(spec, 0);
    net->recompute_in_backward(recompute);
    const auto live = std::make_shared<LiveBytes>();
    const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, live);
    const auto y = net->denoise(x, t, {torch::arange(8), {}});
    kept.push_back(live->bytes);
    y.sum().backward();
  }
  EXPECT_LT(kept[1], kept[0] / 2);
  EXPECT_GT(kept[1], 0);
}

TEST(UnetBlock, RecomputingChangesNoBitOfAdm) {
  NetworkSpec spec;
  spec.image_size = 8;
  spec.pixel_unshuffle = 1;
  spec.channel_mult = {1, 2};
  spec.attention_resolutions = {4};
  torch::manual_seed(4);
  const auto x = torch::randn({3, 1, 8, 8}), probe = torch::randn({3, 1, 8, 8});
  const auto t = torch::tensor({0.1f, 1.0f, 10.0f});
  std::vector<std::unique_ptr<Denoiser>> nets;
  for (const bool recompute : {false, true}) {
    auto& net = nets.emplace_back(make_denoiser(spec, 0));
    torch::manual_seed(5);
    {
      torch::NoGradGuard no_grad;
      for (auto& parameter : net->module().parameters()) parameter.add_(0.05 * torch::randn_like(parameter));
    }
    net->recompute_in_backward(recompute);
    // Twice: the second gradient is added to the first, as micro-batches are.
    for (int pass = 0; pass < 2; ++pass) (net->denoise(x, t, {torch::tensor({1, 2, 3}), {}}) * probe).sum().backward();
  }
  const auto plain = nets[0]->module().named_parameters();
  for (const auto& item : nets[1]->module().named_parameters()) {
    EXPECT_TRUE(torch::equal(plain[item.key()].grad(), item.value().grad())) << item.key();
  }
}

}  // namespace
}  // namespace onestep
