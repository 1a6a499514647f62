#include "cli/interrupt.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>

namespace onestep {
namespace {

std::array<char, 1024> g_text{};  // a handler may only use what is there already
std::size_t g_size = 0;

void on_interrupt(int) {
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, g_text.data(), g_size);
  ::_exit(130);
}

}  // namespace

void say_when_interrupted(const std::string& message) {
  // On a line of its own, behind a progress bar.
  const std::string text = "\nonestep: " + message + "\n";
  g_size = std::min(text.size(), g_text.size());
  std::memcpy(g_text.data(), text.data(), g_size);
  struct sigaction action {};
  action.sa_handler = on_interrupt;
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}

}  // namespace onestep
