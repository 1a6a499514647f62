#include "worker/metrics/frechet.h"

#include <string>

#include "common/error.h"

namespace onestep {
namespace {

// The symmetric root of a covariance; rounding leaves eigenvalues slightly below zero where it is
// singular.
torch::Tensor symmetric_root(const torch::Tensor& matrix) {
  const auto [values, vectors] = torch::linalg_eigh(matrix);
  return torch::matmul(vectors * values.clamp_min(0).sqrt(), vectors.t());
}

}  // namespace

double frechet_distance(const FeatureStats& a, const FeatureStats& b) {
  if (a.mean.sizes() != b.mean.sizes()) {
    throw Error(ErrorCode::kMismatch, "frechet distance: expected features of one width, found " +
                                          std::to_string(a.mean.size(0)) + " and " +
                                          std::to_string(b.mean.size(0)));
  }
  const auto root = symmetric_root(a.covariance);
  const auto product = torch::matmul(torch::matmul(root, b.covariance), root);
  const auto cross = torch::linalg_eigvalsh((product + product.t()) / 2).clamp_min(0).sqrt().sum();
  const auto means = (a.mean - b.mean).square().sum();
  return (means + a.covariance.trace() + b.covariance.trace() - 2 * cross).item<double>();
}

}  // namespace onestep
