#include "worker/comm/make_communicator.h"

#include "worker/comm/mpi_communicator.h"
#include "worker/comm/mpi_session.h"
#include "worker/comm/single_communicator.h"

namespace onestep {
namespace {

// The world, from MPI_Init to MPI_Finalize: the first base goes last.
class MpiWorld final : private MpiSession, public MpiCommunicator {
 public:
  MpiWorld() : MpiCommunicator(static_cast<const MpiSession&>(*this)) {}
};

}  // namespace

std::unique_ptr<Communicator> make_communicator() {
  if (launched_by_mpi()) return std::make_unique<MpiWorld>();
  return std::make_unique<SingleCommunicator>();
}

}  // namespace onestep
