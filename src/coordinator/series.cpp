#include "coordinator/series.h"

#include <algorithm>

namespace onestep {

std::vector<Stretch> merged(const std::vector<Stretch>& stretches, std::int64_t num_groups) {
  const auto size = static_cast<std::int64_t>(stretches.size());
  if (size <= num_groups) return stretches;
  std::vector<Stretch> groups;
  for (std::int64_t i = 0; i < num_groups; ++i) {
    const auto first = stretches.begin() + i * size / num_groups;
    const auto last = stretches.begin() + (i + 1) * size / num_groups;
    Stretch group = *first;
    for (auto one = first + 1; one != last; ++one) {
      group.count += one->count;
      if (one->low < group.low) {
        group.low = one->low;
        group.low_iteration = one->low_iteration;
      }
      if (one->high > group.high) {
        group.high = one->high;
        group.high_iteration = one->high_iteration;
      }
    }
    groups.push_back(group);
  }
  return groups;
}

std::vector<MetricPoint> thinned(std::vector<MetricPoint> points, std::int64_t max_points) {
  const auto size = static_cast<std::int64_t>(points.size());
  if (max_points <= 0 || size <= max_points) return points;
  if (max_points == 1) return {points.back()};
  const std::int64_t stretches = max_points / 2;
  std::vector<MetricPoint> kept;
  for (std::int64_t i = 0; i < stretches; ++i) {
    const auto first = points.begin() + i * size / stretches;
    const auto last = points.begin() + (i + 1) * size / stretches;
    const auto [low, high] = std::minmax_element(
        first, last, [](const MetricPoint& a, const MetricPoint& b) { return a.value < b.value; });
    kept.push_back(*std::min(low, high));
    if (low != high) kept.push_back(*std::max(low, high));
  }
  return kept;
}

}  // namespace onestep
