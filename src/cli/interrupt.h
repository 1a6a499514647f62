// Ctrl-C while something is watched.
#pragma once

#include <string>

namespace onestep {

// From now on SIGINT and SIGTERM print "onestep: `message`" to standard error and end this program with status 130: what is
// watched goes on.
void say_when_interrupted(const std::string& message);

}  // namespace onestep
