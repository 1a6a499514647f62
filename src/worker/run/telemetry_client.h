// A rank's line to the coordinator: reports go out, commands come in, and training never waits for either.
#pragma once

#include <cstddef>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "common/protocol.h"

namespace onestep {

struct TelemetryOptions {
  std::string address_file;   // JSON with "telemetry": "127.0.0.1:40123", and "telemetry_authority" (PEM) for TLS; read again at every connection
  std::string outbox_folder;  // made when needed
  std::string job;
  int attempt = 1;
  int rank = 0;
  int ranks = 1;
  std::string token_file = {};  // the attempt's secret, from its coordinator; "" or a file that is not there: none
};

// A message of the coordinator: kStop, kCheckpointNow, kShardPlan, or kRefused when this attempt is no longer wanted.
struct TelemetryCommand {
  MessageType type = MessageType::kStop;
  nlohmann::json body;
};

// Methods may be called from any thread and don't wait for the network. Connects, and connects again, in a thread of its own.
class TelemetryClient {
 public:
  // Without a coordinator: posts go nowhere, no command ever comes.
  TelemetryClient();
  // Reads what the outbox still holds: this rank's own messages, and on rank 0 those of earlier attempts.
  // Errors: kIo when the outbox can't be made or read.
  explicit TelemetryClient(const TelemetryOptions& options);
  TelemetryClient(const TelemetryClient&) = delete;
  TelemetryClient& operator=(const TelemetryClient&) = delete;
  // Hangs up; what is not acknowledged stays in the outbox.
  ~TelemetryClient();

  // Messages that must be acknowledged are on disk when it returns and are sent until they are; of the others, the newest
  // kQueuedReports wait for the network. A full disk is logged, and the message then lives in memory only.
  // Errors: kInternal for a body that is no object or too long for a frame.
  void post(MessageType type, const nlohmann::json& body);
  // Asks for this rank's shards; the answer comes as a kShardPlan command.
  void request_shards();
  // What came since the last call, in order.
  std::vector<TelemetryCommand> poll();
  // Waits until everything is sent and acknowledged, or the time is over, or this attempt was refused. True when nothing is left.
  bool drain(double timeout_s);

  static constexpr std::size_t kQueuedReports = 256;

 private:
  class Implementation;
  std::unique_ptr<Implementation> implementation_;  // null without a coordinator
};

}  // namespace onestep
