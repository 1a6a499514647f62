// The losses of DMD (arXiv 2311.18828), one function an equation. Every loss is a sum over the given samples divided by
// the global batch: micro-batches add up to the mean over B, C, H, W.
#pragma once

#include <cstdint>

#include "worker/diffusion/denoiser.h"
#include "worker/tensors/figure.h"
#include "worker/tensors/torch.h"

namespace onestep {

// z [B,C,H,W] of unit variance standing for x_t where nothing is left of the image (EDM: 80 z at sigma = 80; discrete steps: z at the
// last step).
torch::Tensor noisiest(const NoiseSchedule& schedule, const torch::Tensor& z, double t);

// G(z): one network call at the generator's t_G. z [B,C,H,W] unit variance.
torch::Tensor generate(Denoiser& generator, const torch::Tensor& z, const Condition& condition, double t_G);

// x_t = alpha_t x + sigma_t epsilon.
torch::Tensor diffuse(const NoiseSchedule& schedule, const torch::Tensor& x, const torch::Tensor& epsilon,
                      const torch::Tensor& t);

struct DistributionMatchingGradient {
  torch::Tensor gradient;               // [B,C,H,W], detached
  Figure zero_denominators;             // samples with mu_real equal to x: their gradient is set to 0
};
// DMD Eq. 7 with the weight of Eq. 8 as Alg. 2 has them: (mu_fake - mu_real) / mean_CHW |x - mu_real|, per sample.
DistributionMatchingGradient distribution_matching_gradient(Denoiser& real_score, Denoiser& fake_score,
                                                            const torch::Tensor& x, const torch::Tensor& x_t,
                                                            const torch::Tensor& t, const Condition& condition);

// Alg. 2, last line: 0.5 MSE(x, stopgrad(x - gradient)); its derivative in x is the gradient over B C H W.
torch::Tensor distribution_matching_loss(const torch::Tensor& x, const torch::Tensor& gradient,
                                         std::int64_t global_batch);

// Alg. 3 (DMD Eq. 6): weight(t) MSE(mu, x) with the schedule's weight (EDM: 1/sigma^2 + 1/sigma_data^2; discrete steps:
// alpha^2/sigma^2, which is the plain MSE of epsilon), fp32.
torch::Tensor denoising_loss(const NoiseSchedule& schedule, const torch::Tensor& mu, const torch::Tensor& x,
                             const torch::Tensor& t, std::int64_t global_batch);

// DMD2's GAN losses (arXiv 2405.14867, Eq. 4, non-saturating), of logits [B] of "noised real image". The generator's: mean of
// softplus(-logit) over its noised samples.
torch::Tensor generator_gan_loss(const torch::Tensor& logit, std::int64_t global_batch);
// The discriminator's: mean of softplus(logit) over noised samples, plus mean of softplus(-logit) over noised real images.
torch::Tensor discriminator_loss(const torch::Tensor& logit, const torch::Tensor& logit_real, std::int64_t global_batch,
                                 std::int64_t global_real);

}  // namespace onestep
