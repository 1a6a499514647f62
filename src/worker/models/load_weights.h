// Copies tensors of a file into a network's parameters, by name, strictly.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "common/safetensors_file.h"
#include "worker/tensors/torch.h"

namespace onestep {

// Every parameter must be among `tensors` under its name with its shape; F32, F16 and BF16 are converted to the parameter's dtype. `copied`
// is called behind each few megabytes, so that their pages may go. Errors: kMismatch naming `where` and every missing, extra, mis-shaped and
// mis-typed tensor at once; nothing is copied then.
void load_weights(torch::nn::Module& module, const std::vector<TensorView>& tensors, const std::string& where,
                  const std::function<void(std::span<const std::byte>)>& copied = {});

}  // namespace onestep
