// Who may include whom, and which files may include heavy headers: the house rules as a pure function over a tree.
#pragma once

#include <map>
#include <string>
#include <vector>

namespace onestep {

// Path below src/ ("worker/dmd/dmd_step.cpp") -> content.
using SourceTree = std::map<std::string, std::string>;

// Every .h, .cpp and .cu file below `folder`.
SourceTree read_source_tree(const std::string& folder);

// One line for each rule broken: "common/x.h includes <torch/torch.h>: ...". Empty when the house is in order.
std::vector<std::string> broken_include_rules(const SourceTree& tree);

}  // namespace onestep
