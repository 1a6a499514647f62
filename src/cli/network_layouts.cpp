#include "cli/network_layouts.h"

namespace onestep {

std::int64_t NetworkLayout::num_parameters() const {
  std::uint64_t total =
      0;  // unsigned: sizes read off a hostile file may wrap, and then differ anyway
  for (const auto& [name_of_tensor, shape] : parameters) {
    std::uint64_t elements = 1;
    for (const std::int64_t dimension : shape) elements *= static_cast<std::uint64_t>(dimension);
    total += elements;
  }
  return static_cast<std::int64_t>(total);
}

}  // namespace onestep
