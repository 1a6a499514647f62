// Activation checkpointing: a piece of a network that keeps its inputs only, and computes the rest again in the backward pass.
#pragma once

#include <functional>
#include <vector>

#include "worker/tensors/torch.h"

namespace onestep {

// A pure function of tensors; what it closes over must outlive the backward pass.
using TensorFunction = std::function<torch::Tensor(const std::vector<torch::Tensor>&)>;

// function(inputs), differentiable in `inputs` and in `parameters` (every trained tensor that `function` closes over; one left
// out gets no gradient). Equal to the plain call bit for bit, provided that each input is used at one place in `function`:
// give a tensor that is used twice as two inputs, the one whose gradient the plain graph adds first in front.
torch::Tensor recomputed(const TensorFunction& function, const std::vector<torch::Tensor>& inputs,
                         const std::vector<torch::Tensor>& parameters);

}  // namespace onestep
