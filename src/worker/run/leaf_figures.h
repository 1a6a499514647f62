// Figures of an iteration, summed over micro-batches in the one fixed tree: equal on every rank and at every rank count.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "worker/comm/communicator.h"

namespace onestep {

class LeafFigures {
 public:
  // names: one figure each; micro_batches: M of the whole iteration.
  LeafFigures(Communicator& communicator, std::int64_t micro_batches, std::vector<std::string> names);
  // The next micro-batch's contributions, in the order of `names`.
  void add(const std::vector<double>& values);
  // Collective. Name -> sum over all micro-batches.
  [[nodiscard]] std::map<std::string, double> reduce();

 private:
  Communicator& communicator_;
  std::int64_t micro_batches_;
  std::vector<std::string> names_;
  std::vector<double> leaves_;  // [local micro-batches][names]
};

}  // namespace onestep
