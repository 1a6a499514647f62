#include "worker/optim/clip.h"

#include <algorithm>
#include <cstddef>
#include <string>

#include "common/error.h"

namespace onestep {
namespace {

constexpr std::size_t kBlock = 1024;
constexpr std::size_t kLanes = 16;

double block_sum(const float* values, std::size_t count) {
  double lanes[kLanes] = {};
  std::size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      const double value = values[i + lane];
      lanes[lane] += value * value;
    }
  }
  for (std::size_t lane = 0; i + lane < count; ++lane) {
    const double value = values[i + lane];
    lanes[lane] += value * value;
  }
  for (std::size_t width = kLanes / 2; width > 0; width /= 2) {
    for (std::size_t lane = 0; lane < width; ++lane) lanes[lane] += lanes[lane + width];
  }
  return lanes[0];
}

}  // namespace

double sum_of_squares(std::span<const float> values) {
  double sum = 0;
  for (std::size_t begin = 0; begin < values.size(); begin += kBlock) {
    sum += block_sum(values.data() + begin, std::min(kBlock, values.size() - begin));
  }
  return sum;
}

std::vector<double> leaf_square_sums(std::span<const float> values, std::int64_t num_leaves) {
  const auto leaves = static_cast<std::size_t>(num_leaves);
  if (num_leaves < 1 || values.size() % leaves != 0) {
    throw Error(ErrorCode::kInternal, "gradient norm: expected a number of leaves that divides " +
                                          std::to_string(values.size()) + " elements, found " +
                                          std::to_string(num_leaves));
  }
  const std::size_t length = values.size() / leaves;
  std::vector<double> sums;
  for (std::size_t leaf = 0; leaf < leaves; ++leaf) sums.push_back(sum_of_squares(values.subspan(leaf * length, length)));
  return sums;
}

double clip_scale(double norm, double max_norm) {
  return max_norm == 0 ? 1.0 : std::min(1.0, max_norm / (norm + 1e-6));
}

}  // namespace onestep
