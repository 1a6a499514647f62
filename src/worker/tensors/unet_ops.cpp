#include "worker/tensors/unet_ops.h"

#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <optional>
#include <string>

#include "worker/tensors/grid_dispatch.h"
#include "worker/tensors/launch.h"
#include "worker/tensors/norm_grid.h"
#include "worker/tensors/resample_grid.h"
#include "worker/tensors/sum_grid.h"

namespace onestep {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr auto kLast = torch::MemoryFormat::ChannelsLast;

torch::Tensor last(const torch::Tensor& x) { return x.defined() ? x.contiguous(kLast) : x; }
torch::Tensor empty_last(const torch::Tensor& like) { return torch::empty(like.sizes(), like.options().memory_format(kLast)); }

// Autograd takes no undefined tensor as an input: absence is an empty optional.
std::optional<torch::Tensor> if_defined(const torch::Tensor& x) { return x.defined() ? std::optional<torch::Tensor>(x) : std::nullopt; }
torch::Tensor row_major(const torch::Tensor& x) { return x.defined() ? x.contiguous() : x; }
torch::Tensor or_undefined(const std::optional<torch::Tensor>& x) { return x ? *x : torch::Tensor(); }

void check_belongs(const char* what, const torch::Tensor& tensor, const torch::Tensor& x, std::vector<std::int64_t> shape) {
  if (!tensor.defined()) return;
  if (tensor.scalar_type() != x.scalar_type() || tensor.device() != x.device() || tensor.sizes() != at::IntArrayRef(shape)) {
    throw Error(ErrorCode::kInternal, std::string("norm: ") + what + ": expected " + c10::str(at::IntArrayRef(shape)) + " of " +
                                          torch::toString(x.scalar_type()) + " on " + x.device().str() + ", found " + c10::str(tensor.sizes()) +
                                          " of " + torch::toString(tensor.scalar_type()) + " on " + tensor.device().str());
  }
}

// The rows of `partial` [rows, columns], fp32, added up -> [columns] of dtype.
torch::Tensor added_up(const torch::Tensor& partial, torch::ScalarType dtype) {
  torch::Tensor out = torch::empty({partial.size(1)}, partial.options().dtype(dtype));
  const auto run = [&]<class Out>(Out /*kind*/) {
    ColumnSum<float, 1, Out> kernel;
    kernel.in = data_of<Pack<float, 1>>(partial);
    kernel.out = data_of<Pack<Out, 1>>(out);
    kernel.rows = partial.size(0);
    kernel.packs = partial.size(1);
    launch(kernel, out);
  };
  dtype == torch::kFloat32 ? run(float{}) : run(BFloat16{});
  return out;
}

// Column sums of scale * in, in the memory order [rows, columns]; with `scaled`, that product is written too. -> [columns] of in's dtype.
torch::Tensor column_sum_of(const torch::Tensor& in, std::int64_t columns, double scale, const torch::Tensor& scaled) {
  constexpr std::int64_t kRowsEach = 128, kMaxChunks = 256;
  const std::int64_t rows = in.numel() / columns;
  const std::int64_t chunks = std::clamp<std::int64_t>(rows / kRowsEach, 1, kMaxChunks);
  const torch::Tensor partial = torch::empty({chunks, columns}, in.options().dtype(torch::kFloat32).memory_format(torch::MemoryFormat::Contiguous));
  with_packs(in.scalar_type(), columns, {in, scaled, partial}, [&]<class P>(P pack) {
    ColumnSum<typename P::T, P::W, float> kernel;
    kernel.in = packs_of(in, pack);
    kernel.scaled = packs_of(scaled, pack);
    kernel.out = data_of<Pack<float, P::W>>(partial);
    kernel.rows = rows;
    kernel.packs = columns / P::W;
    kernel.chunks = chunks;
    kernel.scale = static_cast<float>(scale);
    launch(kernel, in);
  });
  return added_up(partial, in.scalar_type());
}

template <class P>
NormLayout layout_of(const torch::Tensor& x, std::int64_t groups, std::int32_t max_threads) {
  const auto layout = NormLayout::of(x.size(0), x.size(1), x.numel() / (x.size(0) * x.size(1)), groups, P::W, max_threads);
  if (layout.columns > max_threads) {
    throw Error(ErrorCode::kInternal, "norm: expected groups of at most " + std::to_string(max_threads) + " packs, found " + std::to_string(layout.columns));
  }
  return layout;
}

template <class P>
NormInput<typename P::T, P::W> input_of(const torch::Tensor& x, const torch::Tensor& residual, const torch::Tensor& pre, double sum_scale, P pack) {
  NormInput<typename P::T, P::W> input;
  input.x = packs_of(x, pack);
  input.residual = packs_of(residual, pack);
  input.pre = data_of<typename P::T>(pre);
  input.pre_stride = pre.defined() && pre.dim() == 2 ? pre.size(1) : 0;
  input.sum_scale = static_cast<float>(sum_scale);
  return input;
}

template <class T>
NormParameters<T> parameters_of(const torch::Tensor& weight, const torch::Tensor& bias, const torch::Tensor& scale_shift, bool silu) {
  return {data_of<T>(weight), data_of<T>(bias), data_of<T>(scale_shift), silu};
}

class NormActFunction : public torch::autograd::Function<NormActFunction> {
 public:
  static variable_list forward(AutogradContext* context, torch::Tensor x, std::optional<torch::Tensor> optional_residual,
                               std::optional<torch::Tensor> optional_pre, torch::Tensor weight, torch::Tensor bias,
                               std::optional<torch::Tensor> optional_scale_shift, std::int64_t groups, double epsilon, double sum_scale, bool silu) {
    x = last(x);
    const torch::Tensor residual = last(or_undefined(optional_residual)), pre = row_major(or_undefined(optional_pre));
    const torch::Tensor scale_shift = row_major(or_undefined(optional_scale_shift));
    const torch::Tensor y = empty_last(x), sum = residual.defined() ? empty_last(x) : torch::Tensor();
    const torch::Tensor mean = torch::empty({x.size(0), groups}, x.options().dtype(torch::kFloat32).memory_format(torch::MemoryFormat::Contiguous));
    const torch::Tensor rstd = torch::empty_like(mean);
    with_packs(x.scalar_type(), x.size(1), {x, residual, y, sum}, [&]<class P>(P pack) {
      NormForward<typename P::T, P::W> kernel;
      kernel.layout = layout_of<P>(x, groups, kNormForwardThreads);
      kernel.input = input_of(x, residual, pre, sum_scale, pack);
      kernel.parameters = parameters_of<typename P::T>(weight, bias, scale_shift, silu);
      kernel.epsilon = static_cast<float>(epsilon);
      kernel.sum = packs_of(sum, pack);
      kernel.y = packs_of(y, pack);
      kernel.mean = data_of<float>(mean);
      kernel.rstd = data_of<float>(rstd);
      launch(kernel, x);
    });
    // With a residual its sum is kept, which is an output anyway; else x, and s is computed again.
    context->save_for_backward({residual.defined() ? sum : x, residual.defined() ? torch::Tensor() : pre, weight, bias, scale_shift, mean, rstd});
    context->saved_data["has_residual"] = residual.defined();
    context->saved_data["pre_dim"] = pre.defined() ? pre.dim() : std::int64_t{0};
    context->saved_data["sum_scale"] = sum_scale;
    context->saved_data["groups"] = groups;
    context->saved_data["silu"] = silu;
    context->set_materialize_grads(false);
    return residual.defined() ? variable_list{y, sum} : variable_list{y};
  }

  static variable_list backward(AutogradContext* context, variable_list upstream) {
    const auto saved = context->get_saved_variables();
    const torch::Tensor &x = saved[0], &pre = saved[1], &weight = saved[2], &bias = saved[3], &scale_shift = saved[4], &mean = saved[5], &rstd = saved[6];
    const bool has_residual = context->saved_data["has_residual"].toBool(), silu = context->saved_data["silu"].toBool();
    const double sum_scale = context->saved_data["sum_scale"].toDouble();
    const std::int64_t pre_dim = context->saved_data["pre_dim"].toInt();
    const torch::Tensor dy = upstream[0].defined() ? last(upstream[0]) : empty_last(x).zero_();
    const torch::Tensor dsum = has_residual ? last(upstream[1]) : torch::Tensor();
    const torch::Tensor dx = empty_last(x);
    const torch::Tensor dscale_shift = scale_shift.defined() ? torch::empty_like(scale_shift) : torch::Tensor();
    const std::int64_t batch = x.size(0), channels = x.size(1);
    const torch::Tensor per_sample = torch::empty({batch, 3 * channels}, mean.options());
    with_packs(x.scalar_type(), channels, {x, dy, dsum, dx}, [&]<class P>(P pack) {
      NormBackward<typename P::T, P::W> kernel;
      kernel.layout = layout_of<P>(x, context->saved_data["groups"].toInt(), kNormBackwardThreads);
      kernel.input = input_of(x, torch::Tensor(), pre, has_residual ? 1.0 : sum_scale, pack);
      kernel.parameters = parameters_of<typename P::T>(weight, bias, scale_shift, silu);
      kernel.dx_scale = static_cast<float>(sum_scale);
      kernel.mean = data_of<float>(mean);
      kernel.rstd = data_of<float>(rstd);
      kernel.dy = packs_of(dy, pack);
      kernel.dsum = packs_of(dsum, pack);
      kernel.dx = packs_of(dx, pack);
      kernel.per_sample = data_of<float>(per_sample);
      kernel.dscale_shift = data_of<typename P::T>(dscale_shift);
      launch(kernel, x);
    });
    const torch::Tensor sums = added_up(per_sample, x.scalar_type());
    torch::Tensor dpre;
    if (pre_dim == 1) dpre = sums.narrow(0, 2 * channels, channels);
    if (pre_dim == 2) dpre = per_sample.narrow(1, 2 * channels, channels).to(x.scalar_type());
    return {dx, has_residual ? dx : torch::Tensor(), dpre, sums.narrow(0, 0, channels), sums.narrow(0, channels, channels), dscale_shift,
            torch::Tensor(), torch::Tensor(), torch::Tensor(), torch::Tensor()};
  }
};

class ResidualSumFunction : public torch::autograd::Function<ResidualSumFunction> {
 public:
  static torch::Tensor forward(AutogradContext* context, torch::Tensor a, torch::Tensor b, std::optional<torch::Tensor> optional_bias, double scale) {
    a = last(a);
    b = last(b);
    const torch::Tensor bias = or_undefined(optional_bias), y = empty_last(a);
    const std::int64_t channels = a.size(1);
    with_packs(a.scalar_type(), channels, {a, b, bias, y}, [&]<class P>(P pack) {
      ResidualSum<typename P::T, P::W> kernel;
      kernel.a = packs_of(a, pack);
      kernel.b = packs_of(b, pack);
      kernel.bias = packs_of(bias, pack);
      kernel.y = packs_of(y, pack);
      kernel.rows = a.numel() / channels;
      kernel.packs = channels / P::W;
      kernel.scale = static_cast<float>(scale);
      launch(kernel, a);
    });
    context->saved_data["scale"] = scale;
    context->saved_data["has_bias"] = bias.defined();
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list upstream) {
    const torch::Tensor dy = last(upstream[0]);
    const double scale = context->saved_data["scale"].toDouble();
    if (!context->saved_data["has_bias"].toBool()) {
      const torch::Tensor dx = scale == 1 ? dy : dy * scale;
      return {dx, dx, torch::Tensor(), torch::Tensor()};
    }
    const torch::Tensor scaled = scale == 1 ? torch::Tensor() : empty_last(dy);
    const torch::Tensor dbias = column_sum_of(dy, dy.size(1), scale, scaled);
    const torch::Tensor& dx = scaled.defined() ? scaled : dy;
    return {dx, dx, dbias, torch::Tensor()};
  }
};

// With the filter's values as integers the same gain holds for a direction and its transpose.
double gain_of(const Resample2& options) {
  const double sum = options.taps == 4 ? 8 : 2, one = options.up ? 2 / sum : 1 / sum;
  return one * one;
}

torch::Tensor resampled(const torch::Tensor& in, const Resample2& options, double gain) {
  const torch::Tensor x = last(in);
  torch::Tensor y;
  with_packs(x.scalar_type(), x.size(1), {x}, [&]<class P>(P pack) {
    Resample<typename P::T, P::W> kernel;
    kernel.x = packs_of(x, pack);
    kernel.batch = x.size(0);
    kernel.height = x.size(2);
    kernel.width = x.size(3);
    kernel.packs = x.size(1) / P::W;
    kernel.up = options.up;
    kernel.taps = static_cast<std::int32_t>(options.taps);
    kernel.pad = static_cast<std::int32_t>(options.pad);
    kernel.gain = static_cast<float>(gain);
    y = torch::empty({x.size(0), x.size(1), kernel.size_of(x.size(2)), kernel.size_of(x.size(3))}, x.options().memory_format(kLast));
    kernel.y = packs_of(y, pack);
    launch(kernel, x);
  });
  return y;
}

class ResampleFunction : public torch::autograd::Function<ResampleFunction> {
 public:
  static torch::Tensor forward(AutogradContext* context, const torch::Tensor& x, bool up, std::int64_t taps, std::int64_t pad) {
    context->saved_data["up"] = up;
    context->saved_data["taps"] = taps;
    context->saved_data["pad"] = pad;
    const Resample2 options{up, taps, pad};
    return resampled(x, options, gain_of(options));
  }
  static variable_list backward(AutogradContext* context, variable_list upstream) {
    Resample2 options{context->saved_data["up"].toBool(), context->saved_data["taps"].toInt(), context->saved_data["pad"].toInt()};
    const double gain = gain_of(options);
    options.up = !options.up;
    return {resampled(upstream[0], options, gain), torch::Tensor(), torch::Tensor(), torch::Tensor()};
  }
};

}  // namespace

NormActResult norm_act(const NormAct& a) {
  const std::int64_t batch = a.x.size(0), channels = a.x.size(1);
  check_belongs("residual", a.residual, a.x, a.x.sizes().vec());
  check_belongs("weight", a.weight, a.x, {channels});
  check_belongs("bias", a.bias, a.x, {channels});
  check_belongs("scale_shift", a.scale_shift, a.x, {batch, 2 * channels});
  if (a.pre.defined() && a.pre.dim() == 2) {
    check_belongs("pre", a.pre, a.x, {batch, channels});
  } else {
    check_belongs("pre", a.pre, a.x, {channels});
  }
  const auto results = NormActFunction::apply(a.x, if_defined(a.residual), if_defined(a.pre), a.weight, a.bias, if_defined(a.scale_shift), a.groups,
                                              a.epsilon, a.sum_scale, a.silu);
  return {results[0], results.size() > 1 ? results[1] : torch::Tensor()};
}

torch::Tensor residual_sum(const torch::Tensor& a, const torch::Tensor& b, const torch::Tensor& bias, double scale) {
  check_belongs("residual sum", b, a, a.sizes().vec());
  check_belongs("bias", bias, a, {a.size(1)});
  return ResidualSumFunction::apply(a, b, if_defined(bias), scale);
}

torch::Tensor resample2(const torch::Tensor& x, const Resample2& options) {
  if ((options.taps != 2 && options.taps != 4) || (!options.up && (x.size(2) % 2 != 0 || x.size(3) % 2 != 0))) {
    throw Error(ErrorCode::kInternal, "resample: expected 2 or 4 taps and, downwards, even sides, found " + std::to_string(options.taps) + " and " +
                                          c10::str(x.sizes()));
  }
  return ResampleFunction::apply(x, options.up, options.taps, options.pad);
}

torch::Tensor column_sum(const torch::Tensor& x) {
  return x.dim() == 4 ? column_sum_of(last(x), x.size(1), 1, {}) : column_sum_of(x.contiguous(), x.size(1), 1, {});
}

}  // namespace onestep
