// The exponential moving average of parameters, its speed given as a half-life in images.
#pragma once

#include <cstdint>
#include <span>

namespace onestep {

// 0.5^(batch / half_life), and less at the start, when there is little to average: at most (updates + 1) / (updates + 10),
// updates being those made so far.
double ema_decay(double batch, double half_life_images, std::int64_t updates);

// average += (values - average) * (1 - decay), element by element in fp32. Errors: kInternal for different lengths.
void ema_lerp(std::span<float> average, std::span<const float> values, double decay);

}  // namespace onestep
