#include "worker/dmd/distance.h"

#include "common/error.h"

namespace onestep {

torch::Tensor L2Distance::operator()(const torch::Tensor& x, const torch::Tensor& reference) const {
  return (x - reference).square().mean({1, 2, 3});
}

std::unique_ptr<Distance> make_distance(const std::string& name) {
  if (name == "l2") return std::make_unique<L2Distance>();
  throw Error(ErrorCode::kConfig, "distance: expected \"l2\", found \"" + name + "\"");
}

}  // namespace onestep
