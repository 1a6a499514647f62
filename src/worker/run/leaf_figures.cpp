#include "worker/run/leaf_figures.h"

#include "worker/comm/canonical_reduce.h"

namespace onestep {

LeafFigures::LeafFigures(Communicator& communicator, std::int64_t micro_batches, std::vector<std::string> names)
    : communicator_(communicator), micro_batches_(micro_batches), names_(std::move(names)) {}

void LeafFigures::add(const std::vector<double>& values) {
  leaves_.insert(leaves_.end(), values.begin(), values.end());
}

std::map<std::string, double> LeafFigures::reduce() {
  const std::vector<double> sums = tree_sums(communicator_, leaves_, micro_batches_, names_.size());
  std::map<std::string, double> figures;
  for (std::size_t i = 0; i < names_.size(); ++i) figures[names_[i]] = sums[i];
  return figures;
}

}  // namespace onestep
