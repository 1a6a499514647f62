#include "worker/models/model_factory.h"

#include <array>
#include <string>

#include "common/error.h"
#include "worker/models/preconditioners.h"

namespace onestep {
namespace {

template <class Precond>
std::unique_ptr<Preconditioner> make(const NetworkSpec& spec) {
  return std::make_unique<Precond>(spec);
}

struct PreconditionerEntry {
  const char* name;
  std::unique_ptr<Preconditioner> (*make)(const NetworkSpec&);
};

constexpr std::array kPreconditioners = {
    PreconditionerEntry{"edm", make<EdmPrecond>},
    PreconditionerEntry{"vp", make<VpPrecond>},
    PreconditionerEntry{"ve", make<VePrecond>},
    PreconditionerEntry{"iddpm", make<IddpmPrecond>},
};

}  // namespace

std::unique_ptr<Denoiser> make_denoiser(const NetworkSpec& spec, std::uint64_t seed) {
  for (const PreconditionerEntry& entry : kPreconditioners) {
    if (spec.preconditioner != entry.name) continue;
    auto denoiser = entry.make(spec);
    denoiser->initialize(seed);
    return denoiser;
  }
  throw Error(ErrorCode::kConfig, "network: preconditioner: expected edm, vp, ve or iddpm, found " + spec.preconditioner);
}

}  // namespace onestep
