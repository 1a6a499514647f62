// Requests as the API sees them: "METHOD TARGET\nname: value\n...\n\nBODY", against a coordinator with nothing in it.
#include <sstream>

#include "coordinator/api.h"
#include "fuzz/fuzz_target.h"
#include "support/idle_launcher.h"

namespace onestep {
namespace {

HttpRequest request_of(const std::string& text) {
  HttpRequest request;
  std::istringstream lines(text);
  std::string line;
  std::getline(lines, line);
  request.method = line.substr(0, line.find(' '));
  request.target = line.find(' ') == std::string::npos ? "/" : line.substr(line.find(' ') + 1);
  while (std::getline(lines, line) && !line.empty()) {
    const std::size_t colon = line.find(": ");
    if (colon != std::string::npos) request.headers[line.substr(0, colon)] = line.substr(colon + 2);
  }
  request.body.assign(std::istreambuf_iterator<char>(lines), {});
  return request;
}

}  // namespace
}  // namespace onestep

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace onestep;
  static const TempFolder folder(in_memory_parent());
  static Coordinator coordinator({.data = folder / "data", .slots = 1, .clock = [] { return 1000.0; }}, std::make_unique<IdleLauncher>());
  static Api api(coordinator, {.access = {}, .roots = FileRoots({folder / "data"}), .queue = 20});
  const HttpResponse response = api.handle(request_of(text_of(data, size)));
  if (response.status == 500) __builtin_trap();  // a bug, by our own word
  return 0;
}
