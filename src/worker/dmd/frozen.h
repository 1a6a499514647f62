// A network that lets gradients through to its input and keeps none.
#pragma once

#include <vector>

#include "worker/tensors/torch.h"

namespace onestep {

// While it lives, no parameter of `module` asks for a gradient. It must outlive the backward pass.
class Frozen {
 public:
  explicit Frozen(torch::nn::Module& module) {
    for (torch::Tensor& parameter : module.parameters()) {
      if (parameter.requires_grad()) thawed_.push_back(parameter.set_requires_grad(false));
    }
  }
  Frozen(const Frozen&) = delete;
  Frozen& operator=(const Frozen&) = delete;
  ~Frozen() {
    for (const torch::Tensor& parameter : thawed_) parameter.set_requires_grad(true);
  }

 private:
  std::vector<torch::Tensor> thawed_;
};

}  // namespace onestep
