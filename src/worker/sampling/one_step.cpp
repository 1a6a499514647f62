#include "worker/sampling/one_step.h"

#include <string>

#include "common/error.h"

namespace onestep {

torch::Tensor sample_one_step(Denoiser& denoiser, const SamplerSpec& spec,
                              const torch::Tensor& noise, const Condition& condition) {
  if (!(spec.sigma_max > 0)) {
    throw Error(ErrorCode::kConfig, "one_step: sigma_max: expected a number above 0, found " +
                                        std::to_string(spec.sigma_max));
  }
  const auto t = torch::full({noise.size(0)}, spec.sigma_max, noise.options());
  return denoiser.denoise(noise * spec.sigma_max, t, condition);
}

}  // namespace onestep
