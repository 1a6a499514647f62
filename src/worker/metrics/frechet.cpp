#include "worker/metrics/frechet.h"

#include <algorithm>
#include <string>

#include "common/error.h"

namespace onestep {
namespace {

// How many eigenvalues of a covariance can be other than 0; the rest is rounding, whose roots would add up.
std::int64_t rank_bound(const FeatureStats& stats) {
  const std::int64_t width = stats.mean.size(0);
  return stats.count > 0 ? std::min(width, stats.count - 1) : width;
}

// [D,r] with root root^T = C.
torch::Tensor root_of(const FeatureStats& stats) {
  const auto [values, vectors] = torch::linalg_eigh(stats.covariance);  // ascending
  const std::int64_t width = values.size(0), rank = rank_bound(stats);
  return vectors.narrow(1, width - rank, rank) * values.narrow(0, width - rank, rank).clamp_min(0).sqrt();
}

}  // namespace

double frechet_distance(const FeatureStats& a, const FeatureStats& b) {
  if (a.mean.sizes() != b.mean.sizes()) {
    throw Error(ErrorCode::kMismatch, "frechet distance: expected features of one width, found " +
                                          std::to_string(a.mean.size(0)) + " and " +
                                          std::to_string(b.mean.size(0)));
  }
  const bool a_is_smaller = rank_bound(a) <= rank_bound(b);
  const FeatureStats& small = a_is_smaller ? a : b;
  const FeatureStats& large = a_is_smaller ? b : a;
  // C1 = R R^T: the eigenvalues of R^T C2 R are those of C1^(1/2) C2 C1^(1/2), without forming the symmetric root.
  const auto root = root_of(small);
  const auto product = torch::matmul(root.t(), torch::matmul(large.covariance, root));
  const auto values = torch::linalg_eigvalsh((product + product.t()) / 2);  // ascending
  const std::int64_t rank = std::min(values.size(0), rank_bound(large));
  const auto cross = values.narrow(0, values.size(0) - rank, rank).clamp_min(0).sqrt().sum();
  const auto means = (a.mean - b.mean).square().sum();
  return (means + a.covariance.trace() + b.covariance.trace() - 2 * cross).item<double>();
}

}  // namespace onestep
