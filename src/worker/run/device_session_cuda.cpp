#include <cstdlib>
#include <optional>
#include <span>

#include "worker/comm/local_rank.h"
#include "worker/comm/nccl_communicator.h"
#include "worker/run/device_session.h"
#include "worker/tensors/device_part.h"

namespace onestep {

bool has_device_part() { return true; }

DeviceSession open_device(Communicator& communicator) {
  install_device_kernels();
  static_cast<void>(device_description(0));  // which says why when there is none
  const std::optional<int> slot = local_slot([](const char* name) { return std::getenv(name); });
  const int device = device_of_rank(num_visible_devices(), slot.value_or(0));
  DeviceSession session{device_description(device), nullptr};
  // Which algorithms cuDNN takes must not depend on a timing: bits would.
  prepare_device(device, /*benchmark_convolutions=*/false);
  NcclId id = communicator.rank() == 0 ? make_nccl_id() : NcclId();
  communicator.broadcast(std::span(id), 0);
  session.between_devices = std::make_unique<NcclCommunicator>(id, communicator.rank(), communicator.size());
  return session;
}

}  // namespace onestep
