#include "worker/tensors/image_ops.h"

#include <torch/csrc/autograd/custom_function.h>

#include "worker/tensors/grid_dispatch.h"
#include "worker/tensors/image_grid.h"
#include "worker/tensors/launch.h"
#include "worker/tensors/unet_ops.h"

namespace onestep {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// The order in memory that elementwise kernels share.
torch::Tensor packed(const torch::Tensor& x) { return x.dim() == 4 ? x.contiguous(torch::MemoryFormat::ChannelsLast) : x.contiguous(); }
torch::Tensor empty_packed(const torch::Tensor& like, torch::ScalarType dtype) {
  const auto format = like.dim() == 4 ? torch::MemoryFormat::ChannelsLast : torch::MemoryFormat::Contiguous;
  return torch::empty(like.sizes(), like.options().dtype(dtype).memory_format(format));
}

template <class Function>
void with_type(torch::ScalarType dtype, Function function) {
  with_packs(dtype, 1, {}, [&]<class P>(P) { function(typename P::T{}); });
}

torch::Tensor scaled(const torch::Tensor& in, const torch::Tensor& factor, torch::ScalarType dtype) {
  const torch::Tensor x = packed(in), per_sample = factor.contiguous(), y = empty_packed(x, dtype);
  with_type(dtype, [&]<class T>(T /*kind*/) {
    ScaleSamples<T> kernel;
    kernel.x = data_of<float>(x);
    kernel.factor = data_of<float>(per_sample);
    kernel.y = data_of<T>(y);
    kernel.batch = x.size(0);
    kernel.elements = x.numel() / x.size(0);
    launch(kernel, x);
  });
  return y;
}

torch::Tensor per_sample(const torch::Tensor& values, const torch::Tensor& like) {
  std::vector<std::int64_t> shape(static_cast<std::size_t>(like.dim()), 1);
  shape[0] = -1;
  return values.view(shape);
}

class ScaleFunction : public torch::autograd::Function<ScaleFunction> {
 public:
  static torch::Tensor forward(AutogradContext* context, const torch::Tensor& x, const torch::Tensor& factor, torch::ScalarType dtype) {
    context->save_for_backward({factor});
    return scaled(x, factor, dtype);
  }
  static variable_list backward(AutogradContext* context, variable_list upstream) {
    const torch::Tensor dy = upstream[0].to(torch::kFloat32);
    return {dy * per_sample(context->get_saved_variables()[0], dy), torch::Tensor(), torch::Tensor()};
  }
};

class CombineFunction : public torch::autograd::Function<CombineFunction> {
 public:
  static torch::Tensor forward(AutogradContext* context, const torch::Tensor& in, const torch::Tensor& f, const torch::Tensor& c_skip,
                               const torch::Tensor& c_out) {
    const torch::Tensor x = packed(in), F_x = packed(f), skip = c_skip.contiguous(), out = c_out.contiguous(), d = empty_packed(x, torch::kFloat32);
    with_type(F_x.scalar_type(), [&]<class T>(T /*kind*/) {
      CombineSamples<T> kernel;
      kernel.x = data_of<float>(x);
      kernel.f = data_of<T>(F_x);
      kernel.c_skip = data_of<float>(skip);
      kernel.c_out = data_of<float>(out);
      kernel.d = data_of<float>(d);
      kernel.batch = x.size(0);
      kernel.elements = x.numel() / x.size(0);
      launch(kernel, x);
    });
    context->save_for_backward({skip, out});
    context->saved_data["dtype"] = F_x.scalar_type();
    context->saved_data["x_wanted"] = in.requires_grad();
    return d;
  }
  static variable_list backward(AutogradContext* context, variable_list upstream) {
    const auto saved = context->get_saved_variables();
    const torch::Tensor dx = context->saved_data["x_wanted"].toBool() ? upstream[0] * per_sample(saved[0], upstream[0]) : torch::Tensor();
    return {dx, scaled(upstream[0], saved[1], context->saved_data["dtype"].toScalarType()), torch::Tensor(), torch::Tensor()};
  }
};

}  // namespace

torch::Tensor scale_samples(const torch::Tensor& x, const torch::Tensor& factor, torch::ScalarType dtype) { return ScaleFunction::apply(x, factor, dtype); }

torch::Tensor combine_samples(const torch::Tensor& x, const torch::Tensor& F, const torch::Tensor& c_skip, const torch::Tensor& c_out) {
  return CombineFunction::apply(x, F, c_skip, c_out);
}

torch::Tensor diffuse_keyed(const DrawKey& key, std::int64_t first_sample, const torch::Tensor& in, const torch::Tensor& alpha, const torch::Tensor& sigma) {
  const torch::Tensor x = packed(in.detach()), a = alpha.contiguous(), s = sigma.contiguous(), out = empty_packed(x, torch::kFloat32);
  Diffuse kernel;
  kernel.draw = {key.seed, key.stream, data_of<std::int64_t>(key.device_step), static_cast<std::uint64_t>(first_sample)};
  kernel.x = data_of<float>(x);
  kernel.alpha = data_of<float>(a);
  kernel.sigma = data_of<float>(s);
  kernel.out = data_of<float>(out);
  kernel.batch = x.size(0);
  kernel.channels = x.size(1);
  kernel.pixels = x.size(2) * x.size(3);
  kernel.channels_last = true;
  launch(kernel, x);
  return out;
}

DmGradientResult dm_gradient(const torch::Tensor& x, const torch::Tensor& mu_real, const torch::Tensor& mu_fake) {
  const torch::NoGradGuard no_grad;
  const torch::Tensor in = packed(x), real = packed(mu_real), fake = packed(mu_fake), gradient = empty_packed(in, torch::kFloat32);
  const torch::Tensor figures = torch::empty({in.size(0), 3}, in.options().memory_format(torch::MemoryFormat::Contiguous));
  DmGradient kernel;
  kernel.x = data_of<float>(in);
  kernel.mu_real = data_of<float>(real);
  kernel.mu_fake = data_of<float>(fake);
  kernel.gradient = data_of<float>(gradient);
  kernel.figures = data_of<float>(figures);
  kernel.batch = in.size(0);
  kernel.elements = in.numel() / in.size(0);
  launch(kernel, in);
  return {gradient, column_sum(figures)};
}

}  // namespace onestep
