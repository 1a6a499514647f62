#include "worker/run/parametrisation.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "common/error.h"

namespace onestep {

Parametrisation parametrisation_of(const DistillSpec& spec, const Denoiser& denoiser) {
  const std::vector<double>& timesteps = spec.student_timesteps;
  const auto* discrete = dynamic_cast<const DiscreteSchedule*>(&denoiser.schedule());
  if (discrete == nullptr) {
    const NoiseRange range{spec.dmd.sigma_lo, spec.dmd.sigma_hi};
    return {timesteps.empty() ? std::vector<double>{spec.generator_sigma} : timesteps, range, range, {spec.dmd.gan.sigma_lo, spec.dmd.gan.sigma_hi}};
  }
  const std::int64_t steps = discrete->alpha_bar().size(0), last = steps - 1;
  const auto level = [&](double share) {
    return discrete->noise_level(std::min(last, static_cast<std::int64_t>(std::llround(share * static_cast<double>(steps)))));
  };
  // The first call sees noise alone: only the last step stands for that.
  if (!timesteps.empty() && (timesteps.front() != static_cast<double>(last) || timesteps.back() < 0)) {
    throw Error(ErrorCode::kConfig, "student_timesteps: expected steps from the network's last, " + std::to_string(last) +
                                        ", down to 0 at the lowest, found " + nlohmann::json(timesteps).dump());
  }
  return {timesteps.empty() ? std::vector<double>{static_cast<double>(last)} : timesteps,
          {level(spec.dmd.t_lo), level(spec.dmd.t_hi)},
          {level(0), level(1)},
          {level(spec.dmd.gan.t_lo), level(spec.dmd.gan.t_hi)}};
}

std::int64_t num_generator_turns(const DistillSpec& spec, std::int64_t iterations) {
  const std::int64_t every = spec.dmd.fake_updates_per_generator_update;
  return (iterations + every - 1) / every;
}

}  // namespace onestep
