// A number for people to read that may still be on its way: the device's, which nobody waits for until somebody asks.
#pragma once

#include <utility>

#include "worker/tensors/torch.h"

namespace onestep {

class Figure {
 public:
  Figure(double value = 0) : value_(value) {}  // NOLINT: a number is a figure
  // A tensor of one element: read at once on the CPU, kept on a device, whose captured graph writes it anew with every replay.
  explicit Figure(const torch::Tensor& scalar) : pending_(scalar.is_cpu() ? torch::Tensor() : scalar.detach()) {
    if (scalar.is_cpu()) value_ = scalar.item<double>();
  }
  // Waits for the device, where there is one.
  operator double() const { return pending_.defined() ? pending_.item<double>() : value_; }  // NOLINT: and a figure is a number
  // What lies on the device; undefined for a number that is here.
  [[nodiscard]] const torch::Tensor& pending() const { return pending_; }

 private:
  double value_ = 0;
  torch::Tensor pending_;
};

}  // namespace onestep
