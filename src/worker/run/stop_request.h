// For jobs that look up between two pieces of work: has somebody asked this attempt to stop?
#pragma once

#include <string>

#include "worker/run/run_context.h"

namespace onestep {

// Throws kInterrupted, saying `kept`, after a signal or the coordinator's command; kConflict when the coordinator refuses the attempt.
void stop_if_asked(const RunContext& context, const std::string& kept);

}  // namespace onestep
