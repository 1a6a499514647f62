// What a rank's connection may bring: frames, in pieces, and the hello in them.
#include "common/protocol.h"
#include "coordinator/coordinator.h"
#include "fuzz/fuzz_target.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace onestep;
  const std::string bytes = text_of(data, size);
  try {
    FrameReader frames;
    for (std::size_t at = 0; at < bytes.size(); at += 7) {
      frames.feed(std::string_view(bytes).substr(at, 7));
      while (const std::optional<Message> message = frames.next()) {
        if (message->type == MessageType::kHello) static_cast<void>(hello_from_json(message->body));
      }
    }
  } catch (const Error&) {
  }
  return 0;
}
