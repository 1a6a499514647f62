// What a distillation takes from its network's parametrisation: sigma, or discrete steps.
#pragma once

#include <cstdint>
#include <vector>

#include "common/job_spec.h"
#include "worker/diffusion/denoiser.h"
#include "worker/dmd/dmd_step.h"

namespace onestep {

struct Parametrisation {
  std::vector<double> t_G;  // the generator's: the spec's sigma, or the last step; of a student of several steps, its timesteps
  NoiseRange score, fake, gan;
};

// Over sigma, the scores' ranges are sigma_lo to sigma_hi, the discriminator's its own; over T discrete steps, the score's t is one of the
// steps t_lo T to t_hi T, the fake score's is any, the discriminator's one between its own shares. Errors: kConfig for timesteps of a
// student that are no steps of the network, or don't begin at the last.
Parametrisation parametrisation_of(const DistillSpec& spec, const Denoiser& denoiser);

// Of the first `iterations` of the DMD phase, those in which the generator is trained.
[[nodiscard]] std::int64_t num_generator_turns(const DistillSpec& spec, std::int64_t iterations);

}  // namespace onestep
