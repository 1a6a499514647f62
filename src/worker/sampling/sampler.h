// From noise to images: every sampler by the name a job spec gives it.
#pragma once

#include <torch/torch.h>

#include "common/job_spec.h"
#include "worker/diffusion/denoiser.h"

namespace onestep {

// noise [B,C,H,W] fp32 of unit variance -> images [B,C,H,W] fp32, not clamped, on the noise's
// device; no gradient is kept. Rows don't see each other, though a network's bits may depend on B:
// give the B that the job spec names. Errors: kConfig for an unknown kind or options out of range;
// kMismatch for shapes that do not fit the network.
torch::Tensor sample(Denoiser& denoiser, const SamplerSpec& spec, const torch::Tensor& noise,
                     const Condition& condition);

// Network calls a row takes under this spec: 2 * steps - 1 for "heun", 1 for "one_step".
std::int64_t num_network_calls(const SamplerSpec& spec);

}  // namespace onestep
