// What the algorithm asks of whoever owns the optimizer, the ranks and the average.
#pragma once

#include "worker/tensors/figure.h"

namespace onestep {

struct UpdateReport {
  Figure gradient_norm;  // L2 norm of the whole gradient before clipping
};

// One trained network. The gradient buffer is zero before the first add of an iteration.
class Updater {
 public:
  virtual ~Updater() = default;
  // Takes the gradient that backward() left for one micro-batch into the fixed summation tree, and zeroes the buffer.
  virtual void add_micro_batch() = 0;
  // Reduces over ranks, clips, updates parameters and their average.
  virtual UpdateReport step() = 0;
};

}  // namespace onestep
