// Keeps sockets out of launched processes.
#pragma once

#include <fcntl.h>

namespace onestep {

// Asio doesn't ask for it. A worker that inherited the listening socket would hold the port when
// the coordinator is gone, and the next one could not start.
inline void close_on_exec(int descriptor) { ::fcntl(descriptor, F_SETFD, FD_CLOEXEC); }

}  // namespace onestep
