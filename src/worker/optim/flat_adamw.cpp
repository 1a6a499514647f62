#include "worker/optim/flat_adamw.h"

#include <cmath>
#include <string>

#include "common/error.h"

namespace onestep {
namespace {

// Every operation is one correctly rounded fp32 operation (contraction is off), so that a vector of any width, and the
// scalar rest of a loop, give the same bits.
__attribute__((always_inline)) inline void update(float* __restrict parameters, const float* __restrict gradient,
                                                  float* __restrict exp_avg, float* __restrict exp_avg_sq,
                                                  std::size_t count, const AdamwConstants& constants) {
  const AdamwConstants c = constants;
#pragma GCC ivdep
  for (std::size_t i = 0; i < count; ++i) {
    const float g = gradient[i] * c.scale;
    const float m = exp_avg[i] + (g - exp_avg[i]) * c.new1;
    const float v = exp_avg_sq[i] * c.beta2 + (g * g) * c.new2;
    const float denominator = __builtin_sqrtf(v) * c.inverse_root + c.epsilon;
    exp_avg[i] = m;
    exp_avg_sq[i] = v;
    parameters[i] = parameters[i] * c.keep - c.rate * (m / denominator);
  }
}

void update_portable(float* p, const float* g, float* m, float* v, std::size_t n, const AdamwConstants& c) {
  update(p, g, m, v, n, c);
}
#if defined(__x86_64__)
__attribute__((target("avx2"))) void update_avx2(float* p, const float* g, float* m, float* v, std::size_t n,
                                                 const AdamwConstants& c) {
  update(p, g, m, v, n, c);
}
__attribute__((target("avx512f,prefer-vector-width=512"))) void update_avx512(float* p, const float* g, float* m,
                                                                              float* v, std::size_t n,
                                                                              const AdamwConstants& c) {
  update(p, g, m, v, n, c);
}
#endif

}  // namespace

std::vector<AdamwKernel> adamw_kernels() {
  std::vector<AdamwKernel> kernels;
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) kernels.push_back(update_avx512);
  if (__builtin_cpu_supports("avx2")) kernels.push_back(update_avx2);
#endif
  kernels.push_back(update_portable);
  return kernels;
}

AdamwConstants adamw_constants(const AdamwOptions& options, std::int64_t step) {
  const auto t = static_cast<double>(step);
  return {.keep = static_cast<float>(1 - options.learning_rate * options.weight_decay),
          .rate = static_cast<float>(options.learning_rate / (1 - std::pow(options.beta1, t))),
          .new1 = static_cast<float>(1 - options.beta1),
          .beta2 = static_cast<float>(options.beta2),
          .new2 = static_cast<float>(1 - options.beta2),
          .inverse_root = static_cast<float>(1 / std::sqrt(1 - std::pow(options.beta2, t))),
          .epsilon = static_cast<float>(options.epsilon),
          .scale = static_cast<float>(options.gradient_scale)};
}

void flat_adamw(std::span<float> parameters, std::span<const float> gradient, std::span<float> exp_avg,
                std::span<float> exp_avg_sq, const AdamwOptions& options, std::int64_t step) {
  const std::size_t count = parameters.size();
  if (gradient.size() != count || exp_avg.size() != count || exp_avg_sq.size() != count || step < 1) {
    throw Error(ErrorCode::kInternal, "AdamW: expected four spans of " + std::to_string(count) +
                                          " floats and a step >= 1, found " + std::to_string(gradient.size()) + ", " +
                                          std::to_string(exp_avg.size()) + ", " + std::to_string(exp_avg_sq.size()) +
                                          " and step " + std::to_string(step));
  }
  const AdamwConstants constants = adamw_constants(options, step);
  static const AdamwKernel best = adamw_kernels().front();
  best(parameters.data(), gradient.data(), exp_avg.data(), exp_avg_sq.data(), count, constants);
}

}  // namespace onestep
