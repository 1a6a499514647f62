// Telemetry between worker ranks and coordinator: frames, message types, bodies. docs/protocol.md is the reference.
#pragma once

#include <nlohmann/json.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace onestep {

constexpr std::uint8_t kProtocolVersion = 1;
constexpr std::uint32_t kMaxFrameBytes = 1 << 20;  // length field; larger is refused

enum class MessageType : std::uint8_t {
  // worker -> coordinator
  kHello = 1,                // {job, attempt, rank, ranks, pid, host, commit}; always sequence 0, never acknowledged: answered by kWelcome or kRefused
  kHeartbeat = 2,            // {}; may be lost
  kProgress = 3,             // rank 0: {stage, iteration, iterations, images, images_total, images_per_second, seconds_left, metrics{name: number}}; may be lost
  kCheckpointCommitted = 4,  // {attempt, iteration, images, folder, digest, bytes}; kept until acknowledged
  kShardDone = 5,            // {attempt, index, first, count, sha256}; kept until acknowledged
  kFinalState = 6,           // rank 0: {attempt, outcome: JobOutcome}; kept until acknowledged
  kLeaseRequest = 7,         // {}: generate_pairs asks for its shards; answered by kShardPlan
  // coordinator -> worker
  kWelcome = 64,             // {}
  kRefused = 65,             // {code, reason}: unknown job, stale attempt, wrong version, bad message; the connection closes
  kAcknowledge = 66,         // {sequence}
  kStop = 67,                // {reason}: save a checkpoint, then end as "interrupted"
  kCheckpointNow = 68,       // {}
  kShardPlan = 69,           // {shards: [{index, first, count, rank}]}: this rank's leases
};

struct Message {
  MessageType type = MessageType::kHeartbeat;
  std::uint64_t sequence = 0;  // per (attempt, rank), from 1, for messages that are acknowledged; else 0
  nlohmann::json body = nlohmann::json::object();
};

// Frame: u32 length of the rest | u8 version | u8 type | u64 sequence | CBOR body. Little-endian.
std::string encode_frame(const Message& message);

// Cuts a byte stream into messages. One per connection; not thread-safe.
class FrameReader {
 public:
  void feed(std::string_view bytes);
  // nullopt: needs more bytes. Errors: kCorrupt for a wrong version, unknown type, length over the limit, or a body that is no CBOR map.
  std::optional<Message> next();

 private:
  std::string buffer_;
  std::size_t position_ = 0;
};

bool must_be_acknowledged(MessageType type);

}  // namespace onestep
