#include "worker/tensors/recompute.h"

#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <utility>

namespace onestep {
namespace {

struct Closure : torch::CustomClassHolder {
  Closure(TensorFunction f, std::vector<torch::Tensor> p) : function(std::move(f)), parameters(std::move(p)) {}
  TensorFunction function;
  std::vector<torch::Tensor> parameters;
};

class Recompute : public torch::autograd::Function<Recompute> {
 public:
  // Runs without a graph, as every custom function's forward does.
  static torch::Tensor forward(torch::autograd::AutogradContext* context, const c10::intrusive_ptr<Closure>& closure,
                               torch::TensorList inputs, torch::TensorList /*parameters*/) {
    context->save_for_backward(inputs.vec());
    context->saved_data["closure"] = c10::IValue::make_capsule(closure);
    return closure->function(inputs.vec());
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list upstream) {
    const auto holder = context->saved_data["closure"].toCapsule();
    const auto& closure = static_cast<const Closure&>(*holder);
    std::vector<torch::Tensor> inputs;
    for (const torch::Tensor& input : context->get_saved_variables()) {
      inputs.push_back(input.detach().requires_grad_(input.requires_grad()));
    }
    torch::Tensor y;
    {
      const torch::AutoGradMode with_graph(true);
      y = closure.function(inputs);
    }
    std::vector<torch::Tensor> all = inputs, wanted;
    all.insert(all.end(), closure.parameters.begin(), closure.parameters.end());
    for (const torch::Tensor& tensor : all) {
      if (tensor.requires_grad()) wanted.push_back(tensor);
    }
    const auto found = torch::autograd::grad({y}, wanted, {upstream[0]}, /*retain_graph=*/false, /*create_graph=*/false,
                                             /*allow_unused=*/true);
    torch::autograd::variable_list gradients(1);  // none for the closure
    std::size_t next = 0;
    for (const torch::Tensor& tensor : all) {
      gradients.push_back(tensor.requires_grad() ? found[next++] : torch::Tensor());
    }
    return gradients;
  }
};

}  // namespace

torch::Tensor recomputed(const TensorFunction& function, const std::vector<torch::Tensor>& inputs,
                         const std::vector<torch::Tensor>& parameters) {
  const auto closure = c10::make_intrusive<Closure>(function, parameters);
  return Recompute::apply(closure, torch::TensorList(inputs), torch::TensorList(parameters));
}

}  // namespace onestep
