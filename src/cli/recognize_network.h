// Which published network a set of tensors is, and what differs from it. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cli/network_layouts.h"
#include "common/safetensors_file.h"

namespace onestep {

struct RecognizedNetwork {
  std::string name;                   // "" : none
  std::int64_t num_parameters = 0;    // of the network, buffers apart
  std::vector<std::string> problems;  // missing, unexpected and misshapen tensors, by name
};

// Decides by the names that only one network has, reads its options off the shapes, and compares
// every name and shape.
RecognizedNetwork recognize_network(const std::vector<TensorView>& tensors);

}  // namespace onestep
