// The weights of a frozen feature network, taken strictly out of a file's tensors.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "common/safetensors_file.h"
#include "worker/tensors/torch.h"

namespace onestep {

// A tensor that a network needs, under its published name; always fp32.
struct ExpectedTensor {
  std::string name;
  std::vector<std::int64_t> shape;
};

// Copies of `expected` out of `found`, by name. `is_ignored`: names that may be there and aren't read. `where` names the file.
// Errors: kMismatch listing every missing, extra, mis-shaped, mis-typed and doubled tensor at once.
std::map<std::string, torch::Tensor> take_weights(const std::vector<TensorView>& found,
                                                  const std::vector<ExpectedTensor>& expected, const std::string& where,
                                                  const std::function<bool(const std::string&)>& is_ignored);

}  // namespace onestep
