// The one addition that all sums of gradients are made of.
#pragma once

#include <cstddef>

namespace onestep {

// into[i] += from[i]; the two don't overlap. One IEEE addition an element: the same bits in any vector width.
void add_floats(float* into, const float* from, std::size_t count);

}  // namespace onestep
