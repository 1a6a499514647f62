#include "worker/tensors/frozen_convolution.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>

#include <string>
#include <utility>
#include <vector>

namespace onestep {
namespace {

// An operator that libtorch registers without a C++ name of its own.
torch::Tensor call(const char* name, std::vector<c10::IValue> arguments) {
  const auto operation = c10::Dispatcher::singleton().findSchemaOrThrow(name, "");
  operation.callBoxed(arguments);
  return arguments.at(0).toTensor();
}

std::vector<std::int64_t> both(std::int64_t n) { return {n, n}; }

torch::Tensor packed(const torch::Tensor& weight, std::int64_t padding) {
  return call("mkldnn::_reorder_convolution_weight",
              {weight, both(padding), both(1), both(1), std::int64_t{1}, c10::IValue()});
}

torch::Tensor convolve(const torch::Tensor& x, const torch::Tensor& packed_weight, const torch::Tensor& bias, std::int64_t padding,
                       const char* activation) {
  return call("mkldnn::_convolution_pointwise",
              {x, packed_weight, bias.defined() ? c10::IValue(bias) : c10::IValue(), both(padding), both(1), both(1), std::int64_t{1},
               std::string(activation), c10::List<std::optional<at::Scalar>>(), std::string()});
}

class Convolve : public torch::autograd::Function<Convolve> {
 public:
  static torch::Tensor forward(torch::autograd::AutogradContext* context, const torch::Tensor& x, const torch::Tensor& packed_forward,
                               const torch::Tensor& packed_backward, const torch::Tensor& bias, std::int64_t padding) {
    const torch::Tensor y = convolve(x, packed_forward, bias, padding, "relu");
    context->save_for_backward({y, packed_backward});
    context->saved_data["padding"] = padding;
    return y;
  }

  // dx = dy * weight turned by half a circle, its channels exchanged: a forward convolution again.
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list upstream) {
    const auto saved = context->get_saved_variables();
    const auto dy = at::threshold_backward(upstream[0], saved[0], 0).contiguous(torch::MemoryFormat::ChannelsLast);
    return {convolve(dy, saved[1], {}, context->saved_data["padding"].toInt(), "none"), torch::Tensor(), torch::Tensor(),
            torch::Tensor(), torch::Tensor()};
  }
};

}  // namespace

FrozenConvolution::FrozenConvolution(const torch::Tensor& weight, const torch::Tensor& bias)
    : weight_(weight.detach().clone(torch::MemoryFormat::ChannelsLast)), bias_(bias.detach()), padding_(weight.size(2) / 2) {
  const torch::NoGradGuard no_grad;
  packed_ = packed(weight.detach().contiguous(), padding_);
  packed_backward_ = packed(weight.detach().flip({2, 3}).transpose(0, 1).contiguous(), padding_);
}

void FrozenConvolution::move_to(const torch::Device& device, torch::ScalarType dtype) {
  weight_ = weight_.to(device, dtype);
  bias_ = bias_.to(device, dtype);
  packed_ = packed_backward_ = torch::Tensor();
}

torch::Tensor FrozenConvolution::operator()(const torch::Tensor& x) const {
  if (!packed_.defined()) return torch::relu(torch::conv2d(x, weight_, bias_, /*stride=*/1, padding_));
  return Convolve::apply(x.contiguous(torch::MemoryFormat::ChannelsLast), packed_, packed_backward_, bias_, padding_);
}

}  // namespace onestep
