#include "worker/tensors/fused_norm.h"

#include <torch/csrc/autograd/custom_function.h>

#include <optional>

#include "worker/tensors/norm_kernels.h"

namespace onestep {
namespace {

NormShape shape_of(const torch::Tensor& x, std::int64_t groups) {
  return {x.size(0), x.size(1), x.numel() / (x.size(0) * x.size(1)), groups};
}

NormAffine affine_of(const torch::Tensor& weight, const torch::Tensor& bias,
                     const torch::Tensor& scale_shift, bool silu) {
  NormAffine affine;
  affine.weight = weight.const_data_ptr<float>();
  affine.bias = bias.const_data_ptr<float>();
  affine.silu = silu;
  if (scale_shift.defined()) {
    affine.scale = scale_shift.const_data_ptr<float>();
    affine.shift = affine.scale + weight.size(0);
    affine.scale_stride = 2 * weight.size(0);
  }
  return affine;
}

class FusedNorm : public torch::autograd::Function<FusedNorm> {
 public:
  static torch::Tensor forward(torch::autograd::AutogradContext* context, torch::Tensor x,
                               torch::Tensor weight, torch::Tensor bias,
                               std::optional<torch::Tensor> optional_scale_shift, std::int64_t groups, double epsilon, bool silu) {
    x = x.contiguous(torch::MemoryFormat::ChannelsLast);
    torch::Tensor scale_shift;
    if (optional_scale_shift) scale_shift = optional_scale_shift->contiguous();
    torch::Tensor y = torch::empty_like(x);  // channels last, as x
    torch::Tensor mean = torch::empty({x.size(0), groups}, x.options());
    torch::Tensor rstd = torch::empty_like(mean);
    norm_forward(shape_of(x, groups), affine_of(weight, bias, scale_shift, silu),
                 static_cast<float>(epsilon), x.const_data_ptr<float>(), y.data_ptr<float>(),
                 mean.data_ptr<float>(), rstd.data_ptr<float>());
    context->save_for_backward({x, weight, bias, scale_shift, mean, rstd});
    context->saved_data["groups"] = groups;
    context->saved_data["silu"] = silu;
    return y;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list upstream) {
    const auto saved = context->get_saved_variables();
    const torch::Tensor &x = saved[0], &weight = saved[1], &bias = saved[2], &scale_shift = saved[3];
    const torch::Tensor dy = upstream[0].contiguous(torch::MemoryFormat::ChannelsLast);
    torch::Tensor dx = torch::empty_like(x);
    torch::Tensor dweight = torch::empty_like(weight);
    torch::Tensor dbias = torch::empty_like(bias);
    torch::Tensor dscale_shift;
    NormGradients gradients{dx.data_ptr<float>(), dweight.data_ptr<float>(), dbias.data_ptr<float>(),
                            nullptr, nullptr};
    if (scale_shift.defined()) {
      dscale_shift = torch::empty_like(scale_shift);
      gradients.dscale = dscale_shift.data_ptr<float>();
      gradients.dshift = gradients.dscale + x.size(1);
    }
    norm_backward(shape_of(x, context->saved_data["groups"].toInt()),
                  affine_of(weight, bias, scale_shift, context->saved_data["silu"].toBool()),
                  dy.const_data_ptr<float>(), x.const_data_ptr<float>(),
                  saved[4].const_data_ptr<float>(), saved[5].const_data_ptr<float>(), gradients);
    return {dx, dweight, dbias, dscale_shift, torch::Tensor(), torch::Tensor(), torch::Tensor()};
  }
};

}  // namespace

torch::Tensor fused_norm(const torch::Tensor& x, const torch::Tensor& weight, const torch::Tensor& bias,
                         const torch::Tensor& scale_shift, const FusedNormOptions& options) {
  // Autograd takes no undefined tensor as an input: absence is an empty optional.
  std::optional<torch::Tensor> optional_scale_shift;
  if (scale_shift.defined()) optional_scale_shift = scale_shift;
  return FusedNorm::apply(x, weight, bias, optional_scale_shift, options.groups, options.epsilon, options.silu);
}

torch::Tensor reference_norm(const torch::Tensor& x, const torch::Tensor& weight, const torch::Tensor& bias,
                             const torch::Tensor& scale_shift, const FusedNormOptions& options) {
  auto y = torch::group_norm(x, options.groups, weight, bias, options.epsilon);
  if (scale_shift.defined()) {
    const auto halves = scale_shift.unsqueeze(-1).unsqueeze(-1).chunk(2, 1);
    y = y * (1 + halves[0]) + halves[1];
  }
  return options.silu ? torch::silu(y) : y;
}

}  // namespace onestep
