#include "worker/run/stop_signal.h"

#include <csignal>

namespace onestep {
namespace {

volatile std::sig_atomic_t received = 0;

void on_signal(int) { received = 1; }

}  // namespace

void install_stop_signals() {
  for (const int signal : {SIGTERM, SIGINT, SIGUSR1}) std::signal(signal, on_signal);
}

bool stop_signal_received() { return received != 0; }

}  // namespace onestep
