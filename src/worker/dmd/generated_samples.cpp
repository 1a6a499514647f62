#include "worker/dmd/generated_samples.h"

#include <utility>

#include "worker/dmd/losses.h"
#include "worker/tensors/image_ops.h"

namespace onestep {
namespace {

Condition joined(const Condition& fresh, const Condition& pairs) {
  const auto cat = [](const torch::Tensor& a, const torch::Tensor& b) { return a.defined() ? torch::cat({a, b}) : a; };
  return {cat(fresh.labels, pairs.labels), cat(fresh.text, pairs.text)};
}

// t of `count` samples, where `like` lies.
torch::Tensor same_t(const torch::Tensor& like, std::int64_t count, double t) {
  return torch::full({count}, t, like.options().dtype(torch::kFloat32).memory_format(torch::MemoryFormat::Contiguous));
}

// x_t that the generator's step `n` starts from.
torch::Tensor simulate_backward(Denoiser& generator, const std::vector<double>& t_G, std::size_t n, const Draws& draws,
                                const Condition& condition) {
  const torch::NoGradGuard no_grad;
  const auto z = draws.z();
  const auto every = [&z](double t) { return same_t(z, z.size(0), t); };
  auto x_t = noisiest(generator.schedule(), z, t_G[0]);
  for (std::size_t j = 0; j < n; ++j) {
    const auto x = generator.denoise(x_t, every(t_G[j]), condition);
    x_t = diffuse(generator.schedule(), x, draws.backward_noise(j), every(t_G[j + 1]));
  }
  return x_t;
}

}  // namespace

torch::Tensor Draws::normal(RandomStream stream, std::int64_t first, std::int64_t count) const {
  const ImageShape shape = denoiser_.image_shape();
  return keyed_normal(key(stream), first, count, {shape.channels, shape.height, shape.width});
}

torch::Tensor Draws::level(RandomStream stream, const NoiseRange& range, std::int64_t first, std::int64_t count) const {
  return denoiser_.schedule().timestep(keyed_uniform(key(stream), first, count), range.lo, range.hi);
}

template <class Draw>
torch::Tensor Draws::of_samples(Draw draw) const {
  const torch::Tensor fresh = draw(batch_.first_sample, batch_.num_samples);
  if (!pairs_join()) return fresh;
  return torch::cat({fresh, draw(settings_.global_batch + batch_.first_pair, batch_.pair_noise.size(0))});
}

torch::Tensor Draws::z() const { return normal(RandomStream::kGeneratorNoise, batch_.first_sample, batch_.num_samples); }

Condition Draws::condition() const {
  Condition condition;
  if (denoiser_.num_classes() > 0) {
    condition.labels = keyed_integer(key(RandomStream::kGeneratorLabel), batch_.first_sample, batch_.num_samples, denoiser_.num_classes());
  }
  condition.text = batch_.text;
  return condition;
}

std::size_t Draws::student_step() const {
  const auto steps = static_cast<std::int64_t>(settings_.t_G.size());
  if (steps == 1) return 0;
  const DrawKey here{settings_.seed, RandomStream::kStudentStep, step_};  // not a device's: it decides how many calls there are
  return static_cast<std::size_t>(keyed_integer(here, 0, 1, steps).item<std::int64_t>());
}

torch::Tensor Draws::backward_noise(std::size_t student_step) const {
  const std::int64_t first = static_cast<std::int64_t>(student_step) * settings_.global_batch + batch_.first_sample;
  return normal(RandomStream::kBackwardNoise, first, batch_.num_samples);
}

torch::Tensor Draws::timestep(RandomStream stream, const NoiseRange& range) const {
  return of_samples([&](std::int64_t first, std::int64_t count) { return level(stream, range, first, count); });
}

torch::Tensor Draws::noise(RandomStream stream) const {
  return of_samples([&](std::int64_t first, std::int64_t count) { return normal(stream, first, count); });
}

torch::Tensor Draws::diffused(const NoiseSchedule& schedule, const torch::Tensor& x, RandomStream stream, const torch::Tensor& t) const {
  if (!settings_.device_step.defined()) return diffuse(schedule, x, noise(stream), t);
  const auto alpha = schedule.alpha(t), sigma = schedule.sigma(t);
  std::int64_t row = 0;
  return of_samples([&](std::int64_t first, std::int64_t count) {
    const std::int64_t begin = std::exchange(row, row + count);
    const auto rows = [&](const torch::Tensor& tensor) { return tensor.narrow(0, begin, count); };
    return diffuse_keyed(key(stream), first, rows(x), rows(alpha), rows(sigma));
  });
}

torch::Tensor Draws::real_timestep(RandomStream stream, const NoiseRange& range) const {
  return level(stream, range, num_global_samples() + batch_.first_sample, batch_.num_samples);
}

torch::Tensor Draws::real_noise(RandomStream stream) const {
  return normal(stream, num_global_samples() + batch_.first_sample, batch_.num_samples);
}

Condition condition_of_pairs(const MicroBatch& batch) {
  return batch.pair_text.defined() ? Condition{{}, batch.pair_text} : Condition{batch.pair_label, {}};
}

GeneratedSamples generate_samples(Denoiser& generator, const DmdSettings& settings, const Draws& draws, const MicroBatch& batch) {
  const std::size_t n = draws.student_step();
  const std::int64_t fresh = batch.num_samples;
  Condition condition = draws.condition();
  auto x_t = simulate_backward(generator, settings.t_G, n, draws, condition);
  auto t = same_t(x_t, fresh, settings.t_G[n]);
  if (!batch.pair_noise.defined()) return {generator.denoise(x_t, t, condition), condition, {}};

  const std::int64_t pairs = batch.pair_noise.size(0);
  const Condition all = joined(condition, condition_of_pairs(batch));
  x_t = torch::cat({x_t, noisiest(generator.schedule(), batch.pair_noise, settings.t_G[0])});
  t = torch::cat({t, same_t(x_t, pairs, settings.t_G[0])});
  const auto made = generator.denoise(x_t, t, all);
  const auto x_ref = made.narrow(0, fresh, pairs);
  if (draws.pairs_join()) return {made, all, x_ref};
  return {made.narrow(0, 0, fresh), condition, x_ref};
}

}  // namespace onestep
