// What a reader of few_step's images needs to make them again.
#pragma once

#include <cstddef>

#include "worker/sampling/sampler.h"
#include "worker/tensors/torch.h"

namespace onestep {

// The noise of unit variance that few_step draws behind its step i: 0, 1, ... shape: of the images, [B,C,H,W].
torch::Tensor few_step_noise(const SampleRows& rows, std::size_t i, at::IntArrayRef shape);

}  // namespace onestep
