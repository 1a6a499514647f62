#include "worker/metrics/kernel_distance.h"

#include <cmath>
#include <string>

#include "common/error.h"
#include "worker/metrics/numpy_random.h"

namespace onestep {
namespace {

torch::Tensor kernel(const torch::Tensor& x, const torch::Tensor& y) {
  return (torch::mm(x, y.t()) / static_cast<double>(x.size(1)) + 1).pow(3);
}

// Binkowski et al. 2018, Eq. 4: no row is compared with itself.
double squared_mmd(const torch::Tensor& x, const torch::Tensor& y) {
  const auto m = static_cast<double>(x.size(0));
  const auto without_diagonal = [](const torch::Tensor& k) { return (k.sum() - k.trace()).item<double>(); };
  return (without_diagonal(kernel(x, x)) + without_diagonal(kernel(y, y))) / (m * (m - 1)) -
         2 * kernel(x, y).sum().item<double>() / (m * m);
}

torch::Tensor rows_of(const torch::Tensor& features, const std::vector<std::int64_t>& rows) {
  for (const std::int64_t row : rows) {
    if (row >= 0 && row < features.size(0)) continue;
    throw Error(ErrorCode::kMismatch, "kernel distance: expected rows below " + std::to_string(features.size(0)) +
                                          ", found " + std::to_string(row));
  }
  return features.detach().index_select(0, torch::tensor(rows)).to(torch::kFloat64);
}

}  // namespace

std::vector<KernelSubset> kernel_subsets(std::int64_t first_count, std::int64_t second_count, std::int64_t subsets,
                                         std::int64_t size, std::uint32_t seed) {
  NumpyRandom random(seed);
  std::vector<KernelSubset> drawn;
  for (std::int64_t i = 0; i < subsets; ++i) {
    auto first = random.choice(first_count, size);
    auto second = random.choice(second_count, size);
    drawn.push_back({std::move(first), std::move(second)});
  }
  return drawn;
}

KernelDistance kernel_distance(const torch::Tensor& first, const torch::Tensor& second,
                               const std::vector<KernelSubset>& subsets) {
  if (first.dim() != 2 || second.dim() != 2 || first.size(1) != second.size(1) || subsets.empty()) {
    throw Error(ErrorCode::kMismatch, "kernel distance: expected features [N,D] and [M,D] and a subset or more, found " +
                                          c10::str(first.sizes()) + " and " + c10::str(second.sizes()) + ", " +
                                          std::to_string(subsets.size()) + " subsets");
  }
  std::vector<double> estimates;
  for (const KernelSubset& subset : subsets) {
    if (subset.first.size() != subset.second.size() || subset.first.size() < 2) {
      throw Error(ErrorCode::kMismatch, "kernel distance: expected equally many rows of both sides, 2 or more, found " +
                                            std::to_string(subset.first.size()) + " and " +
                                            std::to_string(subset.second.size()));
    }
    estimates.push_back(squared_mmd(rows_of(first, subset.first), rows_of(second, subset.second)));
  }
  KernelDistance distance;
  const auto n = static_cast<double>(estimates.size());
  for (const double value : estimates) distance.mean += value / n;
  for (const double value : estimates) distance.deviation += (value - distance.mean) * (value - distance.mean) / n;
  distance.deviation = std::sqrt(distance.deviation);
  return distance;
}

}  // namespace onestep
