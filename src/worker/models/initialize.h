// Keyed initial values for parameters: a function of (seed, parameter's name), whatever the order of construction.
#pragma once

#include <cstdint>
#include <string>

#include "worker/tensors/torch.h"

namespace onestep {

// Uniform in (-bound, bound) for every element.
void fill_keyed_uniform(torch::Tensor& parameter, std::uint64_t seed, const std::string& name, double bound);
// Normal with the given standard deviation.
void fill_keyed_normal(torch::Tensor& parameter, std::uint64_t seed, const std::string& name, double deviation);

}  // namespace onestep
