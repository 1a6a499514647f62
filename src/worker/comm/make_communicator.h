// The communicator that fits how this process was started.
#pragma once

#include <memory>

#include "worker/comm/communicator.h"

namespace onestep {

// Under mpirun or srun: MPI over all ranks, the object owning the session. Else one process alone, and MPI is not touched.
// Errors: kInternal.
std::unique_ptr<Communicator> make_communicator();

}  // namespace onestep
