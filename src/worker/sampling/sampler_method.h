// What a file of this folder provides: one sampling method, complete with its checks. Adding one is such a file and its name
// in ONESTEP_SAMPLERS (src/CMakeLists.txt).
#pragma once

#include <cstdint>
#include <optional>

#include "common/job_spec.h"
#include "worker/diffusion/denoiser.h"
#include "worker/sampling/sampler.h"
#include "worker/tensors/torch.h"

namespace onestep {

struct SamplerRun {
  Denoiser& denoiser;
  const SamplerSpec& spec;
  const torch::Tensor& noise;  // [B,C,H,W] fp32, unit variance
  const Condition& condition;
  const std::optional<SampleRows>& rows;
};

// sampling/<name>.cpp defines `SamplerMethod <name>_sampler()`. Methods keep no state.
struct SamplerMethod {
  // Throws kConfig when an option does not suit the method, or the network's schedule is of the wrong kind.
  void (*check)(const SamplerSpec& spec, const NoiseSchedule& schedule);
  // Images [B,C,H,W] fp32; called without gradients, behind check().
  torch::Tensor (*run)(const SamplerRun& run);
  // Network calls a row takes.
  std::int64_t (*num_calls)(const SamplerSpec& spec);
};

}  // namespace onestep
