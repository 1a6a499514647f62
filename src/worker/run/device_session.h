// The device of this process, for jobs with device "cuda": one of the two .cpp files is linked.
#pragma once

#include <memory>
#include <string>

#include "worker/comm/communicator.h"

namespace onestep {

// This program has the CUDA part.
bool has_device_part();

struct DeviceSession {
  std::string name;
  std::unique_ptr<TensorCommunicator> between_devices;
};

// Takes the device that this rank's place on its machine names, and connects all ranks' devices. Collective. Errors: kConfig when this program has no CUDA part
// or the machine no such device.
DeviceSession open_device(Communicator& communicator);

}  // namespace onestep
