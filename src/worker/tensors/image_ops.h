// What happens to pictures between the networks, as operations on grid kernels: on the CPU (slowly: the twin) and on a device. Pictures are fp32.
#pragma once

#include "worker/tensors/keyed_random.h"
#include "worker/tensors/torch.h"

namespace onestep {

// factor[b] x, rounded once to `dtype` (fp32 or bfloat16); x [B,...] fp32, factor [B] fp32. Differentiable in x.
torch::Tensor scale_samples(const torch::Tensor& x, const torch::Tensor& factor, torch::ScalarType dtype);

// c_skip[b] x + c_out[b] F in fp32; x [B,C,H,W] fp32, F as x in fp32 or bfloat16. Differentiable in x and F.
torch::Tensor combine_samples(const torch::Tensor& x, const torch::Tensor& F, const torch::Tensor& c_skip, const torch::Tensor& c_out);

// alpha[b] x + sigma[b] epsilon, epsilon drawn inside: what keyed_normal(key, first_sample, ...) gives, without storing it. key.device_step is defined.
torch::Tensor diffuse_keyed(const DrawKey& key, std::int64_t first_sample, const torch::Tensor& x, const torch::Tensor& alpha, const torch::Tensor& sigma);

struct DmGradientResult {
  torch::Tensor gradient;  // as x
  torch::Tensor figures;   // [3] fp32: sums over the batch of gradient^2 / 2 and |gradient|; samples whose denominator was 0
};
// DMD Alg. 2 in one kernel: (mu_fake - mu_real) / mean_CHW |x - mu_real|, 0 where that mean is 0. All [B,C,H,W] fp32; no graph.
DmGradientResult dm_gradient(const torch::Tensor& x, const torch::Tensor& mu_real, const torch::Tensor& mu_fake);

}  // namespace onestep
