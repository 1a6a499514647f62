// AdamW over a piece of flat buffers, in one pass over memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace onestep {

struct AdamwOptions {
  double learning_rate = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.99;
  double epsilon = 1e-8;
  double weight_decay = 0.0;    // decoupled
  double gradient_scale = 1.0;  // clipping
};

// One update, `step` being 1 for the first (Loshchilov and Hutter, arXiv 1711.05101, Alg. 2, with the constants' order of operations
// that PyTorch has). Element by element in fp32, bias corrections in fp64: an element's bits depend on nothing but its own values.
// All spans have the same length and don't overlap. Errors: kInternal for other lengths or step < 1.
void flat_adamw(std::span<float> parameters, std::span<const float> gradient, std::span<float> exp_avg,
                std::span<float> exp_avg_sq, const AdamwOptions& options, std::int64_t step);

// The constants of one update, rounded once.
struct AdamwConstants {
  float keep;              // 1 - learning rate * weight decay
  float rate;              // learning rate / (1 - beta1^step)
  float new1, beta2, new2; // 1 - beta1, beta2, 1 - beta2
  float inverse_root;      // 1 / sqrt(1 - beta2^step)
  float epsilon;
  float scale;
};
// Those of update `step`, in fp64 up to the rounding.
AdamwConstants adamw_constants(const AdamwOptions& options, std::int64_t step);

using AdamwKernel = void (*)(float* parameters, const float* gradient, float* exp_avg, float* exp_avg_sq,
                             std::size_t count, const AdamwConstants& constants);
// The compiled variants that this processor can run, the best first; all give the same bits.
std::vector<AdamwKernel> adamw_kernels();

}  // namespace onestep
