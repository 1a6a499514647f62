// Texts of any length from every rank: Communicator::gather_texts() in rounds that stay below its limit.
#pragma once

#include <string>
#include <vector>

#include "worker/comm/communicator.h"

namespace onestep {

// In the order of ranks on `root`; empty on the others. Collective. Errors: kInternal.
std::vector<std::string> gather_bytes(Communicator& communicator, const std::string& mine, int root);

}  // namespace onestep
