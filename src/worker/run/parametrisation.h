// What a distillation takes from its network's parametrisation: sigma, or discrete steps.
#pragma once

#include "common/job_spec.h"
#include "worker/diffusion/denoiser.h"
#include "worker/dmd/dmd_step.h"

namespace onestep {

struct Parametrisation {
  double t_G = 0;  // the generator's t: the spec's sigma, or the last step
  NoiseRange score, fake;
};

// Over sigma, both ranges are sigma_lo to sigma_hi; over T discrete steps, the score's t is one of the steps t_lo T to t_hi T, the fake
// score's is any.
Parametrisation parametrisation_of(const DistillSpec& spec, const Denoiser& denoiser);

}  // namespace onestep
