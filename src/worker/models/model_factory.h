// The list of networks a spec can name.
#pragma once

#include <memory>

#include "common/job_spec.h"
#include "worker/diffusion/denoiser.h"

namespace onestep {

// A denoiser with keyed initial weights. Parameters are fp32 on the CPU.
std::unique_ptr<Denoiser> make_denoiser(const NetworkSpec& spec, std::uint64_t seed);

}  // namespace onestep
