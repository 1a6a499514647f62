#include "worker/metrics/precision_recall.h"

#include <algorithm>
#include <string>

#include "common/error.h"

namespace onestep {
namespace {

constexpr std::int64_t kBlock = 1024;  // rows of one matrix product

struct Points {
  torch::Tensor x;        // [N,D] fp64
  torch::Tensor squares;  // [N]: |x|^2
};

Points points_of(const torch::Tensor& features) {
  auto x = features.detach().to(torch::kFloat64).contiguous();
  auto squares = x.square().sum(1);
  return {std::move(x), std::move(squares)};
}

// Squared distances of a's rows first .. first+rows-1 to those of b; rounding may leave them slightly below zero.
torch::Tensor squared_distances(const Points& a, std::int64_t first, std::int64_t rows, const Points& b) {
  auto d = torch::mm(a.x.narrow(0, first, rows), b.x.t()).mul_(-2);
  return d.add_(a.squares.narrow(0, first, rows).unsqueeze(1)).add_(b.squares.unsqueeze(0)).clamp_min_(0);
}

// [N]: squared distance from each point to its k-th neighbour within the set.
torch::Tensor squared_radii(const Points& points, std::int64_t k) {
  const std::int64_t count = points.x.size(0);
  std::vector<torch::Tensor> radii;
  for (std::int64_t first = 0; first < count; first += kBlock) {
    const std::int64_t rows = std::min(kBlock, count - first);
    auto distances = squared_distances(points, first, rows, points);
    distances.diagonal(first).zero_();  // a point to itself: exactly 0, and the first of the k + 1 smallest
    radii.push_back(std::get<0>(distances.kthvalue(k + 1, 1)));
  }
  return torch::cat(radii);
}

// The share of `points` that lie within a ball around one of `centers`.
double share_inside(const Points& points, const Points& centers, const torch::Tensor& radii) {
  const std::int64_t count = points.x.size(0);
  std::int64_t inside = 0;
  for (std::int64_t first = 0; first < count; first += kBlock) {
    const std::int64_t rows = std::min(kBlock, count - first);
    const auto hits = squared_distances(points, first, rows, centers) <= radii.unsqueeze(0);
    inside += hits.any(1).sum().item<std::int64_t>();
  }
  return static_cast<double>(inside) / static_cast<double>(count);
}

}  // namespace

PrecisionRecall precision_recall(const torch::Tensor& real, const torch::Tensor& generated, std::int64_t k) {
  if (real.dim() != 2 || generated.dim() != 2 || real.size(1) != generated.size(1) || k < 1 ||
      std::min(real.size(0), generated.size(0)) <= k) {
    throw Error(ErrorCode::kMismatch, "precision and recall: expected features [N,D] and [M,D] of more than " +
                                          std::to_string(k) + " rows, found " + c10::str(real.sizes()) + " and " +
                                          c10::str(generated.sizes()));
  }
  const Points real_points = points_of(real), generated_points = points_of(generated);
  PrecisionRecall result;
  result.precision = share_inside(generated_points, real_points, squared_radii(real_points, k));
  result.recall = share_inside(real_points, generated_points, squared_radii(generated_points, k));
  return result;
}

}  // namespace onestep
