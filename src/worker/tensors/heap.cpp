#include "worker/tensors/heap.h"

#include <malloc.h>

#include <climits>

namespace onestep {

void keep_freed_memory() {
  mallopt(M_MMAP_THRESHOLD, 32 << 20);  // the largest that glibc takes; blocks above it are still mapped singly
  mallopt(M_TRIM_THRESHOLD, INT_MAX);
  mallopt(M_TOP_PAD, 64 << 20);
}

}  // namespace onestep
