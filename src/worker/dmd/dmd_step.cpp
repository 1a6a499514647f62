#include "worker/dmd/dmd_step.h"

#include "worker/dmd/losses.h"
#include "worker/tensors/keyed_random.h"

namespace onestep {
namespace {

// Everything random of one micro-batch's fresh samples, for one purpose.
struct Fresh {
  torch::Tensor z;      // [B,C,H,W]
  Condition condition;
};

// Stopped generator samples, kept for the fake score's update.
struct Kept {
  torch::Tensor x;
  Condition condition;
};

class Draws {
 public:
  Draws(const DmdSettings& settings, std::uint32_t step, const MicroBatch& batch, const Denoiser& denoiser)
      : settings_(settings), step_(step), batch_(batch), denoiser_(denoiser) {}

  [[nodiscard]] Fresh fresh() const {
    Fresh fresh{normal(RandomStream::kGeneratorNoise), {}};
    if (denoiser_.num_classes() > 0) {
      fresh.condition.labels = keyed_integer(key(RandomStream::kGeneratorLabel), batch_.first_sample,
                                             batch_.num_samples, denoiser_.num_classes());
    }
    fresh.condition.text = batch_.text;
    return fresh;
  }
  [[nodiscard]] torch::Tensor timestep(RandomStream stream, const NoiseRange& range) const {
    const auto u = keyed_uniform(key(stream), batch_.first_sample, batch_.num_samples);
    return denoiser_.schedule().timestep(u, range.lo, range.hi);
  }
  [[nodiscard]] torch::Tensor normal(RandomStream stream) const {
    const ImageShape shape = denoiser_.image_shape();
    return keyed_normal(key(stream), batch_.first_sample, batch_.num_samples,
                        {shape.channels, shape.height, shape.width});
  }

 private:
  [[nodiscard]] DrawKey key(RandomStream stream) const { return {settings_.seed, stream, step_}; }

  const DmdSettings& settings_;
  std::uint32_t step_;
  const MicroBatch& batch_;
  const Denoiser& denoiser_;
};

// The pairs' own condition: their label is a class, or the number of a prompt whose embedding is there.
Condition of_pairs(const MicroBatch& batch) {
  return batch.pair_text.defined() ? Condition{{}, batch.pair_text} : Condition{batch.pair_label, {}};
}

Condition with_pairs(const Condition& fresh, const MicroBatch& batch) {
  if (!batch.pair_label.defined()) return fresh;
  const auto joined = [](const torch::Tensor& a, const torch::Tensor& b) { return a.defined() ? torch::cat({a, b}) : a; };
  const Condition pairs = of_pairs(batch);
  return {joined(fresh.labels, pairs.labels), joined(fresh.text, pairs.text)};
}

double value(const torch::Tensor& scalar) { return scalar.item<double>(); }

torch::Tensor regression_loss(const Distance& distance, const torch::Tensor& x, const torch::Tensor& y,
                              std::int64_t global_pairs) {
  return distance(x, y).sum() / static_cast<double>(global_pairs);
}

void describe_samples(DmdSums& sums, const torch::Tensor& x, std::int64_t global_batch) {
  const auto values = x.to(torch::kFloat64);
  const double count = static_cast<double>(global_batch) * static_cast<double>(x.numel() / x.size(0));
  sums.sample_sum = value(values.sum()) / count;
  sums.sample_square_sum = value(values.square().sum()) / count;
}

// Alg. 1, lines on mu_fake: diffuse the kept samples with fresh t and noise, denoise, update.
void update_fake_score(const DmdNetworks& networks, const DmdSettings& settings, std::uint32_t step,
                       std::span<const MicroBatch> micro_batches, const std::vector<Kept>& kept,
                       Updater& update_fake, DmdReport& report) {
  const NoiseSchedule& schedule = networks.fake_score.schedule();
  for (std::size_t m = 0; m < micro_batches.size(); ++m) {
    const Draws draws(settings, step, micro_batches[m], networks.fake_score);
    const auto t = draws.timestep(RandomStream::kFakeSigma, settings.fake);
    const auto x_t = diffuse(schedule, kept[m].x, draws.normal(RandomStream::kFakeNoise), t);
    const auto mu_fake = networks.fake_score.denoise(x_t, t, kept[m].condition);
    const auto loss = denoising_loss(schedule, mu_fake, kept[m].x, t, settings.global_batch);  // Eq. 6
    loss.backward();
    update_fake.add_micro_batch();
    report.micro_batches[m].loss_fake = value(loss);
  }
  report.fake = update_fake.step();
}

}  // namespace

DmdReport dmd_step(const DmdNetworks& networks, const DmdSettings& settings, std::uint32_t step,
                   std::span<const MicroBatch> micro_batches, const Distance& distance, Updater& update_generator,
                   Updater& update_fake) {
  const NoiseSchedule& schedule = networks.real_score.schedule();
  DmdReport report;
  std::vector<Kept> kept;
  for (const MicroBatch& batch : micro_batches) {
    DmdSums& sums = report.micro_batches.emplace_back();
    // Draw noise and pairs; generate both in one pass.
    const Draws draws(settings, step, batch, networks.generator);
    const Fresh fresh = draws.fresh();
    const bool has_pairs = batch.pair_noise.defined();
    const auto z = has_pairs ? torch::cat({fresh.z, batch.pair_noise}) : fresh.z;
    const auto generated = generate(networks.generator, z, with_pairs(fresh.condition, batch), settings.t_G);
    const auto x = generated.narrow(0, 0, batch.num_samples);

    // Distribution matching gradient (Eq. 7, 8) at a random t.
    const auto t = draws.timestep(RandomStream::kScoreSigma, settings.score);
    const auto x_t = diffuse(schedule, x.detach(), draws.normal(RandomStream::kScoreNoise), t);
    const auto [gradient, zero_denominators] = distribution_matching_gradient(
        networks.real_score, networks.fake_score, x.detach(), x_t, t, fresh.condition);
    const auto loss_dm = distribution_matching_loss(x, gradient, settings.global_batch);

    // Regression (Eq. 9) on the pairs; the generator's loss (Alg. 1).
    auto loss = settings.lambda_dm * loss_dm;
    if (has_pairs) {
      const auto x_ref = generated.narrow(0, batch.num_samples, batch.pair_noise.size(0));
      const auto loss_reg = regression_loss(distance, x_ref, batch.pair_image, settings.global_pairs);
      loss = loss + settings.lambda_reg * loss_reg;
      sums.loss_reg = value(loss_reg);
    }
    loss.backward();
    update_generator.add_micro_batch();

    kept.push_back({x.detach(), fresh.condition});
    sums.loss_dm = value(loss_dm);
    sums.gradient_abs = value(gradient.abs().sum()) /
                        static_cast<double>(settings.global_batch * (x.numel() / x.size(0)));
    sums.zero_denominators = static_cast<double>(zero_denominators);
    describe_samples(sums, x.detach(), settings.global_batch);
  }
  report.generator = update_generator.step();
  update_fake_score(networks, settings, step, micro_batches, kept, update_fake, report);
  return report;
}

DmdReport regression_step(Denoiser& generator, const DmdSettings& settings,
                          std::span<const MicroBatch> micro_batches, const Distance& distance,
                          Updater& update_generator) {
  DmdReport report;
  for (const MicroBatch& batch : micro_batches) {
    const auto x = generate(generator, batch.pair_noise, of_pairs(batch), settings.t_G);
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
    torch::NoGradGuard no_grad;
    const Fresh fresh = Draws(settings, step, batch, networks.generator).fresh();
    kept.push_back({generate(networks.generator, fresh.z, fresh.condition, settings.t_G), fresh.condition});
    describe_samples(report.micro_batches.emplace_back(), kept.back().x, settings.global_batch);
  }
  update_fake_score(networks, settings, step, micro_batches, kept, update_fake, report);
  return report;
}

}  // namespace onestep
