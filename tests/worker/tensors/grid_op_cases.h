// The differentiable operations on grid kernels, each with ATen's own operations beside it: for the unit test on the CPU, and for onestep-gpu-tests, which
// compares the device with the CPU bit for bit.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "worker/tensors/torch.h"

namespace onestep {

using Tensors = std::vector<torch::Tensor>;

struct GridOpCase {
  std::string name;
  Tensors inputs;                                      // fp32 on the CPU; all are differentiated
  std::function<Tensors(const Tensors&)> fast, slow;
};

const std::vector<GridOpCase>& grid_op_cases();

// Outputs of `function`, then the gradients of every input (of the sum of products with fixed probes), with the inputs cast and moved first.
Tensors run_grid_op(const GridOpCase& item, const std::function<Tensors(const Tensors&)>& function, torch::ScalarType dtype, const torch::Device& device);

// |a - b| / |b| in fp64.
double relative_error(const torch::Tensor& a, const torch::Tensor& b);

}  // namespace onestep
