// The noise and labels behind `onestep sample` and an export's sixteen samples: the same for the same seed.
#pragma once

#include <cstdint>

#include "common/job_spec.h"
#include "worker/diffusion/denoiser.h"
#include "worker/run/model_folder.h"
#include "worker/tensors/torch.h"

namespace onestep {

struct SampleDraw {
  torch::Tensor noise;   // [count,C,H,W] fp32, unit variance
  torch::Tensor labels;  // [count] int64; zeros for a network without classes
  Condition condition;
};

// Labels are `label`, or i mod num_classes when it is -1. Errors: kConfig for a class the network doesn't have.
SampleDraw sample_draw(const Denoiser& denoiser, std::uint64_t seed, std::int64_t count, std::int64_t label);

// One step at the generator's t, or its several; for a teacher Heun's default within its levels, or guided PNDM for text to image.
SamplerSpec sampler_of(const LoadedModel& model);

// A generator sampled in one or few steps is sampled at those it was trained for. Errors: kMismatch.
void check_sampler_of(const LoadedModel& model, const SamplerSpec& sampler);

}  // namespace onestep
