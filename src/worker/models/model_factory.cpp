#include "worker/models/model_factory.h"

#include "worker/models/edm_precond.h"

namespace onestep {

std::unique_ptr<Denoiser> make_denoiser(const NetworkSpec& spec, std::uint64_t seed) {
  auto denoiser = std::make_unique<EdmPrecond>(spec);
  denoiser->initialize(seed);
  return denoiser;
}

}  // namespace onestep
