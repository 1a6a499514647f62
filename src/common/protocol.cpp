#include "common/protocol.h"

#include <array>
#include <cstddef>

#include "common/error.h"

namespace onestep {
namespace {

using nlohmann::json;

constexpr std::size_t kLengthBytes = 4;
constexpr std::size_t kHeaderBytes = 1 + 1 + 8;  // version, type, sequence
constexpr std::size_t kMaxBodyDepth = 32;

template <class Integer>
void append_little_endian(std::string& out, Integer value) {
  for (std::size_t i = 0; i < sizeof(Integer); ++i) {
    out += static_cast<char>(static_cast<unsigned char>(value >> (8 * i)));
  }
}

template <class Integer>
Integer read_little_endian(std::string_view bytes) {
  Integer value = 0;
  for (std::size_t i = 0; i < sizeof(Integer); ++i) {
    value |= static_cast<Integer>(static_cast<unsigned char>(bytes[i])) << (8 * i);
  }
  return value;
}

bool is_known(std::uint8_t type) {
  return (type >= static_cast<std::uint8_t>(MessageType::kHello) &&
          type <= static_cast<std::uint8_t>(MessageType::kLeaseRequest)) ||
         (type >= static_cast<std::uint8_t>(MessageType::kWelcome) &&
          type <= static_cast<std::uint8_t>(MessageType::kShardPlan));
}

[[noreturn]] void refuse(const std::string& message) {
  throw Error(ErrorCode::kCorrupt, "telemetry frame: " + message);
}

// Walks the items of a CBOR text without recursion, so that a hostile body can't exhaust the stack
// or the memory of the decoder that comes after: definite lengths, no tags, no byte strings,
// bounded depth, nothing left over.
class CborCheck {
 public:
  explicit CborCheck(std::string_view bytes) : bytes_(bytes) {}

  void run() {
    if (bytes_.empty() || head() >> 5 != 5)
      refuse("expected a CBOR map as body, found something else");
    std::array<std::uint64_t, kMaxBodyDepth> open{};  // items still to come in each open container
    std::size_t depth = 0;
    do {
      if (depth > 0) --open[depth - 1];
      const std::uint64_t items = item();
      if (items > 0) {
        if (depth == kMaxBodyDepth) {
          refuse("expected at most " + std::to_string(kMaxBodyDepth) +
                 " levels in the body, found more");
        }
        open[depth++] = items;
      }
      while (depth > 0 && open[depth - 1] == 0) --depth;
    } while (depth > 0);
    if (position_ != bytes_.size()) {
      refuse("expected the body to end with its map, found " +
             std::to_string(bytes_.size() - position_) + " bytes more");
    }
  }

 private:
  [[nodiscard]] std::uint8_t head() const { return static_cast<std::uint8_t>(bytes_[position_]); }

  // Reads one item's head (and a string's content); the number of items inside it.
  std::uint64_t item() {
    if (position_ == bytes_.size()) refuse("expected more of the CBOR body, found its end");
    const int major = head() >> 5;
    const int info = head() & 31;
    ++position_;
    if (info > 27) refuse("expected CBOR items of definite length, found another");
    std::uint64_t argument = static_cast<std::uint64_t>(info);
    if (info >= 24) {
      const std::size_t width = std::size_t{1} << (info - 24);
      const std::string_view raw = take(width);
      argument = 0;
      for (const char c : raw) argument = (argument << 8) | static_cast<unsigned char>(c);
    }
    switch (major) {
      case 3:
        take(argument);
        return 0;
      case 4:
        return bounded(argument);
      case 5:
        return 2 * bounded(argument);
      case 2:
      case 6:
        refuse("expected JSON's types in the CBOR body, found a byte string or a tag");
      default:
        return 0;
    }
  }

  // Every item takes at least one byte, so a count beyond the bytes left is a lie.
  [[nodiscard]] std::uint64_t bounded(std::uint64_t count) const {
    if (count > bytes_.size() - position_) {
      refuse("expected a CBOR count within the body, found " + std::to_string(count));
    }
    return count;
  }

  std::string_view take(std::uint64_t count) {
    if (count > bytes_.size() - position_) refuse("expected more of the CBOR body, found its end");
    const std::string_view part = bytes_.substr(position_, static_cast<std::size_t>(count));
    position_ += static_cast<std::size_t>(count);
    return part;
  }

  std::string_view bytes_;
  std::size_t position_ = 0;
};

json decode_body(std::string_view bytes) {
  CborCheck(bytes).run();
  json body = json::from_cbor(bytes.begin(), bytes.end(), true, false);
  if (!body.is_object()) refuse("expected a CBOR map with text keys as body, found something else");
  try {
    static_cast<void>(body.dump());
  } catch (const json::exception&) {
    refuse("expected UTF-8 text in the body, found other bytes");
  }
  return body;
}

}  // namespace

std::string encode_frame(const Message& message) {
  if (!message.body.is_object()) {
    throw Error(ErrorCode::kInternal, "telemetry frame: expected an object as body, found " +
                                          std::string(message.body.type_name()));
  }
  const std::vector<std::uint8_t> body = json::to_cbor(message.body);
  const std::size_t length = kHeaderBytes + body.size();
  if (length > kMaxFrameBytes) {
    throw Error(ErrorCode::kInternal, "telemetry frame: expected at most " +
                                          std::to_string(kMaxFrameBytes) + " bytes, found " +
                                          std::to_string(length));
  }
  std::string frame;
  frame.reserve(kLengthBytes + length);
  append_little_endian(frame, static_cast<std::uint32_t>(length));
  frame += static_cast<char>(kProtocolVersion);
  frame += static_cast<char>(message.type);
  append_little_endian(frame, message.sequence);
  frame.append(body.begin(), body.end());
  return frame;
}

void FrameReader::feed(std::string_view bytes) {
  if (position_ > 0 && position_ >= buffer_.size() / 2) {
    buffer_.erase(0, position_);
    position_ = 0;
  }
  buffer_ += bytes;
}

std::optional<Message> FrameReader::next() {
  const std::string_view rest = std::string_view(buffer_).substr(position_);
  if (rest.size() < kLengthBytes) return std::nullopt;
  const auto length = read_little_endian<std::uint32_t>(rest);
  if (length <= kHeaderBytes || length > kMaxFrameBytes) {
    refuse("expected a length from " + std::to_string(kHeaderBytes + 1) + " to " +
           std::to_string(kMaxFrameBytes) + ", found " + std::to_string(length));
  }
  // Version and type are judged as soon as they are there: a foreign peer needn't send the rest.
  const std::string_view header = rest.substr(kLengthBytes);
  if (!header.empty() && static_cast<std::uint8_t>(header[0]) != kProtocolVersion) {
    refuse("expected protocol version " + std::to_string(kProtocolVersion) + ", found " +
           std::to_string(static_cast<std::uint8_t>(header[0])));
  }
  if (header.size() > 1 && !is_known(static_cast<std::uint8_t>(header[1]))) {
    refuse("expected a known message type, found " +
           std::to_string(static_cast<std::uint8_t>(header[1])));
  }
  if (header.size() < length) return std::nullopt;
  Message message;
  message.type = static_cast<MessageType>(static_cast<std::uint8_t>(header[1]));
  message.sequence = read_little_endian<std::uint64_t>(header.substr(2));
  message.body = decode_body(header.substr(kHeaderBytes, length - kHeaderBytes));
  position_ += kLengthBytes + length;
  return message;
}

bool must_be_acknowledged(MessageType type) {
  return type == MessageType::kCheckpointCommitted || type == MessageType::kShardDone ||
         type == MessageType::kFinalState;
}

}  // namespace onestep
