// One network call: what a distilled generator is for.
#pragma once

#include <torch/torch.h>

#include "common/job_spec.h"
#include "worker/diffusion/denoiser.h"

namespace onestep {

// D(sigma_max * z; sigma_max), as sample().
torch::Tensor sample_one_step(Denoiser& denoiser, const SamplerSpec& spec,
                              const torch::Tensor& noise, const Condition& condition);

}  // namespace onestep
