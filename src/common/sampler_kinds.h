// The samplers that this build has, by the names that job specs give them.
#pragma once

#include <string>
#include <vector>

namespace onestep {

const std::vector<std::string>& sampler_kinds();

}  // namespace onestep
