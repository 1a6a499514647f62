// SIGTERM, SIGINT and SIGUSR1 ask for a checkpoint and an orderly end.
#pragma once

namespace onestep {

void install_stop_signals();
// True once any of them has arrived.
bool stop_signal_received();

}  // namespace onestep
