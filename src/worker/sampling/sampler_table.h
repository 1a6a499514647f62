// All sampling methods by name; sampler_table.cpp is made from ONESTEP_SAMPLERS (src/CMakeLists.txt).
#pragma once

#include <string_view>
#include <vector>

#include "worker/sampling/sampler_method.h"

namespace onestep {

struct SamplerEntry {
  std::string_view kind;
  SamplerMethod method;
};

const std::vector<SamplerEntry>& sampler_table();

}  // namespace onestep
