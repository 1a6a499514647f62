#include "worker/dmd/losses.h"

#include "worker/tensors/image_ops.h"

namespace onestep {
namespace {

// Mean over B, C, H, W where B is the global batch.
torch::Tensor global_mean(const torch::Tensor& values, std::int64_t global_batch) {
  return values.sum() / static_cast<double>(global_batch * (values.numel() / values.size(0)));
}

}  // namespace

torch::Tensor noisiest(const NoiseSchedule& schedule, const torch::Tensor& z, double t) {
  const auto options = z.options().dtype(torch::kFloat32).memory_format(torch::MemoryFormat::Contiguous);
  return per_sample(schedule.prior_deviation(torch::full({z.size(0)}, t, options))) * z;
}

torch::Tensor generate(Denoiser& generator, const torch::Tensor& z, const Condition& condition, double t_G) {
  const auto t = torch::full({z.size(0)}, t_G, z.options().dtype(torch::kFloat32).memory_format(torch::MemoryFormat::Contiguous));
  return generator.denoise(noisiest(generator.schedule(), z, t_G), t, condition);
}

torch::Tensor diffuse(const NoiseSchedule& schedule, const torch::Tensor& x, const torch::Tensor& epsilon,
                      const torch::Tensor& t) {
  return per_sample(schedule.alpha(t)) * x + per_sample(schedule.sigma(t)) * epsilon;
}

DistributionMatchingGradient distribution_matching_gradient(Denoiser& real_score, Denoiser& fake_score,
                                                            const torch::Tensor& x, const torch::Tensor& x_t,
                                                            const torch::Tensor& t, const Condition& condition) {
  torch::NoGradGuard no_grad;
  const auto mu_real = real_score.denoise(x_t, t, condition);
  const auto mu_fake = fake_score.denoise(x_t, t, condition);
  if (!x.is_cpu()) {
    const DmGradientResult result = dm_gradient(x, mu_real, mu_fake);
    return {result.gradient, Figure(result.figures[2])};
  }
  const auto denominator = (x - mu_real).abs().mean({1, 2, 3}, /*keepdim=*/true);
  const auto is_zero = denominator == 0;
  auto gradient = (mu_fake - mu_real) / denominator.masked_fill(is_zero, 1);
  return {gradient.masked_fill_(is_zero, 0), Figure(is_zero.sum())};
}

torch::Tensor distribution_matching_loss(const torch::Tensor& x, const torch::Tensor& gradient,
                                         std::int64_t global_batch) {
  const auto target = (x - gradient).detach();
  return 0.5 * global_mean((x - target).square(), global_batch);
}

torch::Tensor denoising_loss(const NoiseSchedule& schedule, const torch::Tensor& mu, const torch::Tensor& x,
                             const torch::Tensor& t, std::int64_t global_batch) {
  return global_mean(per_sample(schedule.denoising_weight(t)) * (mu - x).square(), global_batch);
}

torch::Tensor generator_gan_loss(const torch::Tensor& logit, std::int64_t global_batch) {
  return torch::softplus(-logit).sum() / static_cast<double>(global_batch);
}

torch::Tensor discriminator_loss(const torch::Tensor& logit, const torch::Tensor& logit_real, std::int64_t global_batch,
                                 std::int64_t global_real) {
  return torch::softplus(logit).sum() / static_cast<double>(global_batch) +
         torch::softplus(-logit_real).sum() / static_cast<double>(global_real);
}

}  // namespace onestep
