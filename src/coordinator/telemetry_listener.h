// The port that worker ranks talk to: frames in, acknowledgements and commands out, one connection
// a rank.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/protocol.h"
#include "coordinator/coordinator.h"

namespace boost::asio {
class io_context;
}

namespace onestep {

// What the listener asks of the coordinator; called on the io_context's thread. A refusal is sent
// as kRefused{code, reason} and ends the connection, and so does an Error that `hello` throws.
struct TelemetryHandlers {
  std::function<HelloAnswer(const Hello&)> hello;
  // What has arrived since the last call, of all ranks, in order; an answer each. Must not throw.
  std::function<std::vector<MessageAnswer>(const std::vector<ReceivedMessage>&)> messages;
};

struct TelemetryLimits {
  std::chrono::milliseconds hello_timeout{5'000};
  std::size_t queued_bytes = 4U << 20;  // unsent bytes a connection may have; more closes it
  int connections = 4096;
};

// For ranks on other hosts: all addresses of this host, over TLS.
struct TelemetryDoor {
  std::string host;         // the name or address by which ranks reach this host
  std::string certificate;  // PEM files of the server
  std::string key;
};

// All methods on the thread that runs the io_context, which outlives the listener.
class TelemetryListener {
 public:
  // Binds a free port, of 127.0.0.1 or of the door, and listens; nothing is accepted before start(). Errors:
  // kUnavailable; kCorrupt for a certificate or key that is none.
  TelemetryListener(boost::asio::io_context& io, TelemetryLimits limits,
                    TelemetryHandlers handlers, const std::optional<TelemetryDoor>& door = std::nullopt);
  ~TelemetryListener();
  TelemetryListener(const TelemetryListener&) = delete;
  TelemetryListener& operator=(const TelemetryListener&) = delete;

  [[nodiscard]] std::string address() const;  // "127.0.0.1:40123", "node1:40123"
  [[nodiscard]] int num_connections() const;
  void start();
  void stop();

  // To that rank of that attempt, or with rank -1 to all its ranks; whoever is not connected misses
  // it. Returns how many it went to.
  int send(const RankId& to, const Message& message);

 private:
  class Implementation;
  std::shared_ptr<Implementation> implementation_;
};

}  // namespace onestep
