// From noise to images: every sampler by the name a job spec gives it.
#pragma once

#include <cstdint>
#include <optional>

#include "common/job_spec.h"
#include "worker/diffusion/denoiser.h"
#include "worker/tensors/torch.h"

namespace onestep {

// Which samples the rows of a batch are: the key of the noise that a sampler draws on its way (law 1).
struct SampleRows {
  std::uint64_t seed = 0;
  std::int64_t first = 0;  // global index of row 0
};

struct SampleOptions {
  std::optional<SampleRows> rows;  // needed by samplers that draw noise (S_churn > 0)
  torch::Tensor null_text;         // [1,T,D], needed to guide by text (guidance_scale > 1)
};

// noise [B,C,H,W] fp32 of unit variance -> images [B,C,H,W] fp32, not clamped, on the noise's
// device; no gradient is kept. Rows don't see each other, though a network's bits may depend on B:
// give the B that the job spec names. Errors: kConfig for an unknown kind, or options that do not
// suit it or the network; kMismatch for shapes that do not fit the network.
torch::Tensor sample(Denoiser& denoiser, const SamplerSpec& spec, const torch::Tensor& noise, const Condition& condition,
                     const SampleOptions& options = {});

// Network calls a row takes under this spec; two a step of a guided one.
std::int64_t num_network_calls(const SamplerSpec& spec);

}  // namespace onestep
