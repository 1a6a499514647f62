// A response body that goes on: what there is to send now, and a call when there is more.
#pragma once

#include <functional>
#include <optional>
#include <string>

namespace onestep {

// One thread: the server's. Destroyed when the connection is over.
class BodyStream {
 public:
  virtual ~BodyStream() = default;
  // What is to be sent next; "": nothing at the moment; nullopt: that was all, the connection closes.
  virtual std::optional<std::string> next() = 0;
  // Calls `wake` when next() may have something; may be called at any time, also for nothing.
  virtual void on_ready(std::function<void()> wake) = 0;
};

}  // namespace onestep
