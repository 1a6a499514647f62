#include "worker/run/stop_request.h"

#include "common/error.h"
#include "worker/run/stop_signal.h"

namespace onestep {

void stop_if_asked(const RunContext& context, const std::string& kept) {
  bool stop = stop_signal_received();
  for (const TelemetryCommand& command : context.telemetry.poll()) {
    if (command.type == MessageType::kStop) stop = true;
    if (command.type == MessageType::kRefused) {
      throw Error(ErrorCode::kConflict, "the coordinator refuses this attempt: " +
                                            command.body.value("reason", std::string("no reason given")));
    }
  }
  if (stop) throw Error(ErrorCode::kInterrupted, "stopped on request; " + kept);
}

}  // namespace onestep
