#include "worker/dmd/dmd_step.h"

#include "worker/dmd/frozen.h"
#include "worker/dmd/generated_samples.h"
#include "worker/dmd/losses.h"

namespace onestep {
namespace {

// Stopped generator samples, kept for the fake score's update.
struct Kept {
  torch::Tensor x;
  Condition condition;
};

Figure value(const torch::Tensor& scalar) { return Figure(scalar); }

enum Lambda { kDm, kReg };

torch::Tensor weighted(const DmdSettings& settings, Lambda which, const torch::Tensor& loss) {
  if (settings.device_lambda.defined()) return settings.device_lambda[which] * loss;
  return (which == kDm ? settings.lambda_dm : settings.lambda_reg) * loss;
}

torch::Tensor regression_loss(const Distance& distance, const torch::Tensor& x, const torch::Tensor& y,
                              std::int64_t global_pairs) {
  return distance(x, y).sum() / static_cast<double>(global_pairs);
}

void describe_samples(DmdSums& sums, const torch::Tensor& x, std::int64_t global_batch) {
  const auto values = x.to(torch::kFloat64);
  const double count = static_cast<double>(global_batch) * static_cast<double>(x.numel() / x.size(0));
  sums.sample_sum = value(values.sum() / count);
  sums.sample_square_sum = value(values.square().sum() / count);
}

// Samples as they are, for iterations that are not the generator's turn.
Kept keep_samples(const DmdNetworks& networks, const DmdSettings& settings, const Draws& draws, const MicroBatch& batch,
                  DmdSums& sums) {
  const torch::NoGradGuard no_grad;
  const auto [x, condition, x_ref] = generate_samples(networks.generator, settings, draws, batch);
  describe_samples(sums, x, draws.num_global_samples());
  return {x, condition};
}

// DMD2 Sec. 4.3: the discriminator's loss on noised samples and noised real images, each at a t of its own.
torch::Tensor discriminate(const DmdNetworks& networks, const DmdSettings& settings, const Draws& draws, const MicroBatch& batch,
                           const Kept& kept, DmdSums& sums) {
  const NoiseSchedule& schedule = networks.fake_score.schedule();
  const auto t = draws.timestep(RandomStream::kDiscriminatorSigma, settings.gan);
  const auto t_real = draws.real_timestep(RandomStream::kDiscriminatorSigma, settings.gan);
  const auto x_t = diffuse(schedule, kept.x, draws.noise(RandomStream::kDiscriminatorNoise), t);
  const auto x_t_real = diffuse(schedule, batch.real_image, draws.real_noise(RandomStream::kDiscriminatorNoise), t_real);
  const auto logit = networks.discriminator->logit(x_t, t, kept.condition);
  const auto logit_real = networks.discriminator->logit(x_t_real, t_real, {batch.real_label, batch.real_text});
  const auto loss = discriminator_loss(logit, logit_real, draws.num_global_samples(), settings.global_batch);
  sums.loss_discriminator = value(loss);
  sums.discriminator_accuracy = value(((logit < 0).sum() + (logit_real > 0).sum()).to(torch::kFloat64) /
                                      static_cast<double>(draws.num_global_samples() + settings.global_batch));
  return loss;
}

// Alg. 1, lines on mu_fake: diffuse the kept samples with fresh t and noise, denoise, update; the discriminator learns with it.
void update_fake_score(const DmdNetworks& networks, const DmdSettings& settings, std::uint32_t step,
                       std::span<const MicroBatch> micro_batches, const std::vector<Kept>& kept,
                       Updater& update_fake, DmdReport& report) {
  const NoiseSchedule& schedule = networks.fake_score.schedule();
  for (std::size_t m = 0; m < micro_batches.size(); ++m) {
    const Draws draws(settings, step, micro_batches[m], networks.fake_score);
    DmdSums& sums = report.micro_batches[m];
    const auto t = draws.timestep(RandomStream::kFakeSigma, settings.fake);
    const auto x_t = draws.diffused(schedule, kept[m].x, RandomStream::kFakeNoise, t);
    const auto mu_fake = networks.fake_score.denoise(x_t, t, kept[m].condition);
    auto loss = denoising_loss(schedule, mu_fake, kept[m].x, t, draws.num_global_samples());  // Eq. 6
    sums.loss_fake = value(loss);
    if (networks.discriminator != nullptr) {
      loss = loss + settings.lambda_discriminator * discriminate(networks, settings, draws, micro_batches[m], kept[m], sums);
    }
    loss.backward();
    update_fake.add_micro_batch();
  }
  report.fake = update_fake.step();
}

// The generator's half of Alg. 1 on one micro-batch.
Kept train_generator(const DmdNetworks& networks, const DmdSettings& settings, const Draws& draws, const MicroBatch& batch,
                     const Distance& distance, Updater& update_generator, DmdSums& sums) {
  const NoiseSchedule& schedule = networks.real_score.schedule();
  const std::int64_t global_samples = draws.num_global_samples();
  // Draw noise and pairs; generate both in one pass.
  const auto [x, condition, x_ref] = generate_samples(networks.generator, settings, draws, batch);

  // Distribution matching gradient (Eq. 7, 8) at a random t.
  const auto t = draws.timestep(RandomStream::kScoreSigma, settings.score);
  const auto x_t = draws.diffused(schedule, x.detach(), RandomStream::kScoreNoise, t);
  const auto [gradient, zero_denominators] =
      distribution_matching_gradient(networks.real_score, networks.fake_score, x.detach(), x_t, t, condition);
  const auto loss_dm = distribution_matching_loss(x, gradient, global_samples);

  // Regression (Eq. 9) on the pairs, the discriminator's verdict (DMD2 Eq. 4); the generator's loss.
  auto loss = weighted(settings, kDm, loss_dm);
  if (x_ref.defined()) {
    const auto loss_reg = regression_loss(distance, x_ref, batch.pair_image, settings.global_pairs);
    loss = loss + weighted(settings, kReg, loss_reg);
    sums.loss_reg = value(loss_reg);
  }
  if (networks.discriminator != nullptr) {
    const auto t_gan = draws.timestep(RandomStream::kGanSigma, settings.gan);
    const auto x_t_gan = diffuse(schedule, x, draws.noise(RandomStream::kGanNoise), t_gan);
    const auto loss_gan = generator_gan_loss(networks.discriminator->logit(x_t_gan, t_gan, condition), global_samples);
    loss = loss + settings.lambda_gan * loss_gan;
    sums.loss_gan = value(loss_gan);
  }
  loss.backward();
  update_generator.add_micro_batch();

  sums.loss_dm = value(loss_dm);
  sums.gradient_abs = value(gradient.abs().sum().to(torch::kFloat64) / static_cast<double>(global_samples * (x.numel() / x.size(0))));
  sums.zero_denominators = zero_denominators;
  describe_samples(sums, x.detach(), global_samples);
  return {x.detach(), condition};
}

}  // namespace

bool is_generators_turn(const DmdSettings& settings, std::uint32_t step) {
  return (static_cast<std::int64_t>(step) - settings.first_step) % settings.fake_updates_per_generator_update == 0;
}

DmdReport dmd_step(const DmdNetworks& networks, const DmdSettings& settings, std::uint32_t step,
                   std::span<const MicroBatch> micro_batches, const Distance& distance, Updater& update_generator,
                   Updater& update_fake) {
  DmdReport report;
  std::vector<Kept> kept;
  const bool trains_generator = is_generators_turn(settings, step);
  {
    const Frozen frozen(networks.fake_score.module());  // gradients of the generator's loss go through it, none stays
    for (const MicroBatch& batch : micro_batches) {
      const Draws draws(settings, step, batch, networks.generator);
      DmdSums& sums = report.micro_batches.emplace_back();
      kept.push_back(trains_generator
                         ? train_generator(networks, settings, draws, batch, distance, update_generator, sums)
                         : keep_samples(networks, settings, draws, batch, sums));
    }
  }
  if (trains_generator) report.generator = update_generator.step();
  update_fake_score(networks, settings, step, micro_batches, kept, update_fake, report);
  return report;
}

DmdReport regression_step(Denoiser& generator, const DmdSettings& settings,
                          std::span<const MicroBatch> micro_batches, const Distance& distance,
                          Updater& update_generator) {
  DmdReport report;
  for (const MicroBatch& batch : micro_batches) {
    const auto x = generate(generator, batch.pair_noise, condition_of_pairs(batch), settings.t_G.front());
    const auto loss = regression_loss(distance, x, batch.pair_image, settings.global_pairs);
    loss.backward();
    update_generator.add_micro_batch();
    DmdSums& sums = report.micro_batches.emplace_back();
    sums.loss_reg = value(loss);
    describe_samples(sums, x.detach(), settings.global_pairs);
  }
  report.generator = update_generator.step();
  return report;
}

DmdReport fake_score_step(const DmdNetworks& networks, const DmdSettings& settings, std::uint32_t step,
                          std::span<const MicroBatch> micro_batches, Updater& update_fake) {
  DmdReport report;
  std::vector<Kept> kept;
  for (const MicroBatch& batch : micro_batches) {
    const Draws draws(settings, step, batch, networks.generator);
    kept.push_back(keep_samples(networks, settings, draws, batch, report.micro_batches.emplace_back()));
  }
  update_fake_score(networks, settings, step, micro_batches, kept, update_fake, report);
  return report;
}

}  // namespace onestep
