#include "common/error.h"
#include "worker/run/device_session.h"

namespace onestep {

bool has_device_part() { return false; }

DeviceSession open_device(Communicator& /*communicator*/) {
  throw Error(ErrorCode::kConfig, "device: cuda: expected onestep-worker-cuda beside onestep-worker, found none: it is built where there is a CUDA toolkit");
}

}  // namespace onestep
