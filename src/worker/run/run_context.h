// What a job needs of the process it runs in.
#pragma once

#include <string>

#include "common/job_spec.h"
#include "worker/comm/communicator.h"
#include "worker/run/telemetry_client.h"

namespace onestep {

struct RunContext {
  const JobSpec& spec;
  std::string run;          // the run folder, absolute
  int attempt = 1;
  Communicator& communicator;
  TelemetryClient& telemetry;
  bool has_coordinator = false;
  // With device "cuda": its name, and how tensors go between devices. Else "" and null.
  std::string device_name = {};
  TensorCommunicator* between_devices = nullptr;
};

}  // namespace onestep
