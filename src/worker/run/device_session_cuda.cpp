#include <cstdlib>
#include <span>

#include "worker/comm/nccl_communicator.h"
#include "worker/run/device_session.h"
#include "worker/tensors/device_part.h"

namespace onestep {

bool has_device_part() { return true; }

DeviceSession open_device(Communicator& communicator) {
  install_device_kernels();
  const char* local = std::getenv("OMPI_COMM_WORLD_LOCAL_RANK");
  const int device = local != nullptr ? std::atoi(local) : 0;
  DeviceSession session{device_description(device), nullptr};
  // Which algorithms cuDNN takes must not depend on a timing: bits would.
  prepare_device(device, /*benchmark_convolutions=*/false);
  NcclId id = communicator.rank() == 0 ? make_nccl_id() : NcclId();
  communicator.broadcast(std::span(id), 0);
  session.between_devices = std::make_unique<NcclCommunicator>(id, communicator.rank(), communicator.size());
  return session;
}

}  // namespace onestep
