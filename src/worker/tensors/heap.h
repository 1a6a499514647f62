// How the C library's heap treats the large, short-lived blocks of a training step.
#pragma once

namespace onestep {

// Freed blocks stay with the process instead of going back to the kernel, which would clear and map the same pages anew
// at every step. Called once, before the first tensor.
void keep_freed_memory();

}  // namespace onestep
