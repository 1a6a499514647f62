// How a long curve is shown by few points: the lowest and the highest of each stretch.
#pragma once

#include <cstdint>
#include <vector>

#include "coordinator/store.h"

namespace onestep {

// A part of a curve: how many points it has, where its lowest and its highest lie.
struct Stretch {
  std::int64_t place = 0;  // of iterations place << shift .. ((place + 1) << shift) - 1
  std::int64_t count = 0;
  double low = 0;
  std::int64_t low_iteration = 0;
  double high = 0;
  std::int64_t high_iteration = 0;
};

// Level l has stretches of 16^l iterations; level 0 is the points themselves.
constexpr int kStretchShift = 4;
constexpr int kStretchLevels = 6;

// The stretches, in order, taken together to at most `num_groups` of about equal numbers of rows.
std::vector<Stretch> merged(const std::vector<Stretch>& stretches, std::int64_t num_groups);

// Of at most max_points / 2 stretches of equal length the lowest and the highest point, in their
// order; the last point alone when max_points is 1; all when it is 0 or there are no more.
std::vector<MetricPoint> thinned(std::vector<MetricPoint> points, std::int64_t max_points);

}  // namespace onestep
