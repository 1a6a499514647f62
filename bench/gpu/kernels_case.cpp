// Each operation on grid kernels beside ATen's own operations for the same result, on the same tensors; the results are compared.
#include <torch/csrc/autograd/autograd.h>

#include <functional>

#include "cases.h"
#include "collected.h"
#include "timing.h"
#include "worker/tensors/fused_norm.h"
#include "worker/tensors/image_ops.h"
#include "worker/tensors/unet_ops.h"

namespace onestep {
namespace {

using Tensors = std::vector<torch::Tensor>;

struct KernelCase {
  const char* name;
  double bytes;                                // at least, each input read and each output written once
  std::function<Tensors()> ours, stock;
};

double distance(const Tensors& a, const Tensors& b) {
  double worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const auto expected = b[i].to(torch::kFloat64);
    worst = std::max(worst, ((a[i].to(torch::kFloat64) - expected).norm() / expected.norm()).item<double>());
  }
  return worst;
}

// Forward and, with it, the gradients of every leaf for the upstream gradient dy.
Tensors both_ways(const torch::Tensor& y, const Tensors& leaves, const torch::Tensor& dy) {
  Tensors results = {y.detach()};
  for (const torch::Tensor& gradient : torch::autograd::grad({y}, leaves, {dy})) results.push_back(gradient);
  return results;
}

}  // namespace

nlohmann::json run_kernels(const BenchOptions& options) {
  const std::int64_t batch = options.small ? 2 : 112, side = options.small ? 8 : 32, channels = options.small ? 32 : 256;
  const auto there = torch::TensorOptions(options.device).dtype(torch::kBFloat16);
  const auto randn = [&](at::IntArrayRef shape) {
    const auto x = torch::randn(shape, there);
    return shape.size() == 4 ? x.contiguous(torch::MemoryFormat::ChannelsLast) : x;
  };
  torch::manual_seed(1);
  const auto x = randn({batch, channels, side, side}).requires_grad_(true), r = randn({batch, channels, side, side}).requires_grad_(true);
  const auto w = randn({channels}).requires_grad_(true), b = randn({channels}).requires_grad_(true), pre = randn({batch, channels}).requires_grad_(true);
  const auto dy = randn({batch, channels, side, side}), dy_up = randn({batch, channels, 2 * side, 2 * side});
  const double size = static_cast<double>(x.numel()) * 2;
  const FusedNormOptions norm{32 < channels / 4 ? 32 : channels / 4, 1e-6, true};
  const auto ours_norm = [&] { return norm_act({x, {}, pre, w, b, {}, norm.groups, norm.epsilon, 1, true}).y; };
  const auto stock_norm = [&] { return reference_norm(x + pre.view({batch, channels, 1, 1}), w, b, {}, norm); };
  const auto images = torch::randn({batch, 3, side, side}, there.dtype(torch::kFloat32)).contiguous(torch::MemoryFormat::ChannelsLast);
  const auto mu_real = torch::randn_like(images), mu_fake = torch::randn_like(images);
  const double image_size = static_cast<double>(images.numel()) * 4;
  const std::vector<KernelCase> cases = {
      {"norm_silu forward", 2 * size, [&] { return Tensors{ours_norm().detach()}; }, [&] { return Tensors{stock_norm().detach()}; }},
      {"norm_silu both ways", 5 * size, [&] { return both_ways(ours_norm(), {x, pre, w, b}, dy); },
       [&] { return both_ways(stock_norm(), {x, pre, w, b}, dy); }},
      {"residual sum both ways", 5 * size, [&] { return both_ways(residual_sum(x, r, b, 0.5), {x, r, b}, dy); },
       [&] { return both_ways((x + r + b.view({1, channels, 1, 1})) * 0.5, {x, r, b}, dy); }},
      {"resample up both ways", 10 * size, [&] { return both_ways(resample2(x, {true, 2, 0}), {x}, dy_up); },
       [&] { return both_ways(torch::upsample_nearest2d(x, {2 * side, 2 * side}), {x}, dy_up); }},
      {"column sum", size, [&] { return Tensors{column_sum(x.detach())}; }, [&] { return Tensors{x.detach().sum({0, 2, 3})}; }},
      {"distribution matching gradient", 4 * image_size, [&] { return Tensors{dm_gradient(images, mu_real, mu_fake).gradient}; },
       [&] { return Tensors{(mu_fake - mu_real) / (images - mu_real).abs().mean({1, 2, 3}, true)}; }},
  };
  nlohmann::json results = nlohmann::json::array();
  for (const KernelCase& item : cases) {
    const double error = distance(item.ours(), item.stock());
    const auto recorded_ours = record([&] { item.ours(); }), recorded_stock = record([&] { item.stock(); });
    const Timing ours = time_work([&] { recorded_ours->run(); }, options.seconds / 12), stock = time_work([&] { recorded_stock->run(); }, options.seconds / 12);
    results.push_back({{"name", item.name}, {"us", ours.seconds_each * 1e6}, {"stock_us", stock.seconds_each * 1e6}, {"relative_error", error},
                       {"bytes_per_second", item.bytes / ours.seconds_each}});
  }
  return {{"cases", results}, {"description", {{"batch", batch}, {"channels", channels}, {"side", side}}}};
}

}  // namespace onestep
