#include "worker/run/parametrisation.h"

#include <algorithm>
#include <cmath>

namespace onestep {

Parametrisation parametrisation_of(const DistillSpec& spec, const Denoiser& denoiser) {
  const auto* discrete = dynamic_cast<const DiscreteSchedule*>(&denoiser.schedule());
  if (discrete == nullptr) {
    const NoiseRange range{spec.dmd.sigma_lo, spec.dmd.sigma_hi};
    return {spec.generator_sigma, range, range};
  }
  const std::int64_t steps = discrete->alpha_bar().size(0), last = steps - 1;
  const auto level = [&](double share) {
    return discrete->noise_level(std::min(last, static_cast<std::int64_t>(std::llround(share * static_cast<double>(steps)))));
  };
  return {static_cast<double>(last), {level(spec.dmd.t_lo), level(spec.dmd.t_hi)}, {level(0), level(1)}};
}

}  // namespace onestep
