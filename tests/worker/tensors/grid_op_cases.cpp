#include "worker/tensors/grid_op_cases.h"

#include "worker/tensors/fused_norm.h"
#include "worker/tensors/unet_ops.h"

namespace onestep {
namespace {

struct NormCase {
  const char* name;
  std::int64_t batch, channels, height, width, groups;
  bool residual, scale_shift, silu;
  int pre_dims;  // 0: none
  double sum_scale;
};

GridOpCase norm_case(const NormCase& c) {
  GridOpCase item{c.name, {torch::randn({c.batch, c.channels, c.height, c.width}) * 2 + 3, torch::randn({c.channels}), torch::randn({c.channels})}, {}, {}};
  if (c.residual) item.inputs.push_back(torch::randn(item.inputs[0].sizes()));
  if (c.pre_dims == 1) item.inputs.push_back(torch::randn({c.channels}));
  if (c.pre_dims == 2) item.inputs.push_back(torch::randn({c.batch, c.channels}));
  if (c.scale_shift) item.inputs.push_back(torch::randn({c.batch, 2 * c.channels}));
  const auto unpack = [c](const Tensors& in) {
    NormAct a;
    std::size_t next = 3;
    a.x = in[0], a.weight = in[1], a.bias = in[2];
    if (c.residual) a.residual = in[next++];
    if (c.pre_dims > 0) a.pre = in[next++];
    if (c.scale_shift) a.scale_shift = in[next++];
    a.groups = c.groups, a.sum_scale = c.sum_scale, a.silu = c.silu;
    return a;
  };
  item.fast = [unpack](const Tensors& in) {
    const NormActResult result = norm_act(unpack(in));
    return result.sum.defined() ? Tensors{result.y, result.sum} : Tensors{result.y};
  };
  item.slow = [unpack](const Tensors& in) {
    const NormAct a = unpack(in);
    auto sum = a.x;
    if (a.pre.defined()) sum = sum + a.pre.view({-1, a.x.size(1), 1, 1});
    if (a.residual.defined()) sum = sum + a.residual;
    sum = sum * a.sum_scale;
    const auto y = reference_norm(sum, a.weight, a.bias, a.scale_shift, {a.groups, a.epsilon, a.silu});
    return a.residual.defined() ? Tensors{y, sum} : Tensors{y};
  };
  return item;
}

GridOpCase residual_case(const char* name, at::IntArrayRef shape, bool bias, double scale) {
  GridOpCase item{name, {torch::randn(shape), torch::randn(shape)}, {}, {}};
  if (bias) item.inputs.push_back(torch::randn({shape[1]}));
  item.fast = [scale](const Tensors& in) { return Tensors{residual_sum(in[0], in[1], in.size() > 2 ? in[2] : torch::Tensor(), scale)}; };
  item.slow = [scale](const Tensors& in) {
    const auto sum = in[0] + in[1];
    return Tensors{(in.size() > 2 ? sum + in[2].view({1, -1, 1, 1}) : sum) * scale};
  };
  return item;
}

GridOpCase resample_case(const char* name, at::IntArrayRef shape, const Resample2& options) {
  GridOpCase item{name, {torch::randn(shape)}, {}, {}};
  item.fast = [options](const Tensors& in) { return Tensors{resample2(in[0], options)}; };
  item.slow = [options](const Tensors& in) {
    const auto f = options.taps == 4 ? torch::tensor({1.0, 3.0, 3.0, 1.0}, torch::kFloat64) : torch::ones({2}, torch::kFloat64);
    const auto filter = (torch::outer(f, f) / f.sum().square()).to(in[0].options()).expand({in[0].size(1), 1, -1, -1});
    if (options.up) return Tensors{torch::conv_transpose2d(in[0], 4 * filter, {}, 2, options.pad, 0, in[0].size(1))};
    return Tensors{torch::conv2d(in[0], filter, {}, 2, options.pad, 1, in[0].size(1))};
  };
  return item;
}

GridOpCase column_case(const char* name, at::IntArrayRef shape) {
  // Not differentiable: the gradient of its input is that of nothing.
  return {name, {torch::randn(shape)}, [](const Tensors& in) { return Tensors{column_sum(in[0].detach()) + 0 * in[0].sum()}; },
          [](const Tensors& in) { return Tensors{(in[0].dim() == 4 ? in[0].detach().sum({0, 2, 3}) : in[0].detach().sum(0)) + 0 * in[0].sum()}; }};
}

std::vector<GridOpCase> make_cases() {
  torch::manual_seed(1);
  return {
      norm_case({"norm: 32 groups of 4", 2, 128, 16, 16, 32, false, false, true, 0, 1.0}),
      norm_case({"norm: 32 groups of 8, a bias before it", 2, 256, 8, 8, 32, false, false, true, 1, 1.0}),
      norm_case({"norm: shifted by the embedding", 3, 128, 8, 8, 32, false, false, true, 2, 1.0}),
      norm_case({"norm: scaled and shifted", 3, 192, 8, 8, 32, false, true, true, 1, 1.0}),
      norm_case({"norm: groups of 42 channels, as behind a concatenation", 2, 1344, 4, 4, 32, false, true, true, 0, 1.0}),
      norm_case({"norm: of a residual sum, linear", 2, 256, 8, 8, 32, true, false, false, 1, 0.7071067811865476}),
      norm_case({"norm: of a residual sum, all at once", 2, 64, 5, 3, 16, true, true, true, 2, 0.5}),
      norm_case({"norm: channels that no pack divides", 2, 12, 7, 7, 3, false, false, true, 0, 1.0}),
      norm_case({"norm: one pixel, one group", 3, 8, 1, 1, 1, false, true, true, 0, 1.0}),
      norm_case({"norm: 4,096 pixels", 1, 64, 64, 64, 16, false, false, true, 1, 1.0}),
      residual_case("residual sum, bias and scale", {3, 64, 9, 7}, true, 0.7071067811865476),
      residual_case("residual sum, bias", {2, 20, 4, 4}, true, 1.0),
      residual_case("residual sum", {2, 6, 3, 5}, false, 1.0),
      residual_case("residual sum, many rows", {4, 32, 32, 32}, true, 0.5),
      resample_case("up, box", {2, 16, 5, 3}, {true, 2, 0}),
      resample_case("down, box", {2, 16, 6, 4}, {false, 2, 0}),
      resample_case("up, 1331", {2, 16, 5, 3}, {true, 4, 1}),
      resample_case("down, 1331", {2, 16, 6, 4}, {false, 4, 1}),
      resample_case("down, 1331, behind a padded convolution", {2, 12, 8, 6}, {false, 4, 0}),
      column_case("column sums of rows", {1000, 48}),
      column_case("column sums of a picture", {3, 7, 31, 33}),
  };
}

}  // namespace

const std::vector<GridOpCase>& grid_op_cases() {
  static const std::vector<GridOpCase> kCases = make_cases();
  return kCases;
}

Tensors run_grid_op(const GridOpCase& item, const std::function<Tensors(const Tensors&)>& function, torch::ScalarType dtype, const torch::Device& device) {
  Tensors inputs;
  for (const torch::Tensor& input : item.inputs) {
    inputs.push_back(input.clone().to(dtype).to(device).requires_grad_(true));
  }
  Tensors results = function(inputs);
  torch::Tensor loss;
  torch::manual_seed(2);
  for (const torch::Tensor& result : results) {
    const auto probe = torch::randn(result.sizes()).to(torch::kBFloat16).to(result.scalar_type()).to(device);
    const auto part = (result * probe).sum();
    loss = loss.defined() ? loss + part : part;
  }
  loss.backward();
  for (torch::Tensor& result : results) result = result.detach();
  for (const torch::Tensor& input : inputs) results.push_back(input.grad());
  return results;
}

double relative_error(const torch::Tensor& a, const torch::Tensor& b) {
  const auto expected = b.to(torch::kFloat64);
  return ((a.to(torch::kFloat64) - expected).norm() / expected.norm().clamp_min(1e-12)).item<double>();
}

}  // namespace onestep
