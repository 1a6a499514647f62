#include "worker/optim/ema.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>

#include "common/error.h"

namespace onestep {

double ema_decay(double batch, double half_life_images, std::int64_t updates) {
  const auto n = static_cast<double>(updates);
  return std::min(std::exp2(-batch / half_life_images), (n + 1) / (n + 10));
}

void ema_lerp(std::span<float> average, std::span<const float> values, double decay) {
  if (values.size() != average.size()) {
    throw Error(ErrorCode::kInternal, "average: expected " + std::to_string(average.size()) + " values, found " +
                                          std::to_string(values.size()));
  }
  const auto weight = static_cast<float>(1 - decay);
  float* __restrict out = average.data();
  const float* __restrict in = values.data();
  for (std::size_t i = 0; i < average.size(); ++i) out[i] += (in[i] - out[i]) * weight;
}

}  // namespace onestep
