// Heun's method on the probability flow ODE (Karras et al. 2022, Algorithm 1 with S_churn = 0).
#pragma once

#include <torch/torch.h>

#include <vector>

#include "common/job_spec.h"
#include "worker/diffusion/denoiser.h"

namespace onestep {

// sigma_i = (sigma_max^(1/rho) + i/(N-1) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho for i < N,
// then 0: N + 1 values, fp64.
std::vector<double> heun_sigmas(const SamplerSpec& spec);

// As sample(); the state is fp64, the network sees fp32.
torch::Tensor sample_heun(Denoiser& denoiser, const SamplerSpec& spec, const torch::Tensor& noise,
                          const Condition& condition);

}  // namespace onestep
