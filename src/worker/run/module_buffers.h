// A network's buffers (frequencies, tables, filters) within a checkpoint's manifest: no optimizer moves them, so they are in none
// of the flat buffers.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "worker/tensors/torch.h"

namespace onestep {

// {"<name>": [values]} of every buffer (fp32, exact); {} for networks without.
nlohmann::json buffers_to_json(const torch::nn::Module& module);

// Copies them back. Strict: every missing, extra or mis-sized buffer is named. Errors: kMismatch naming `where`.
void load_buffers(torch::nn::Module& module, const nlohmann::json& buffers, const std::string& where);

}  // namespace onestep
