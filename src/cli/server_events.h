// Server-sent events as they arrive: bytes in, events out.
#pragma once

#include <nlohmann/json.hpp>

#include <functional>
#include <string>
#include <string_view>

namespace onestep {

struct ServerEvent {
  std::string id;    // of the last event that had one, this one included
  std::string type;  // "message" where the server names none; "" for a heartbeat
  std::string data;
};

// The object in `data`. Errors: kUnavailable for anything else: it is no coordinator that speaks.
nlohmann::json body_of(const ServerEvent& event);

// One stream, from its first byte on. Comments are handed on as heartbeats.
class ServerEventParser {
 public:
  // `id` of the event that the stream goes on after.
  explicit ServerEventParser(std::string id = "") : id_(std::move(id)) {}
  void feed(std::string_view bytes, const std::function<void(const ServerEvent&)>& on_event);

 private:
  void take_line(std::string_view line, const std::function<void(const ServerEvent&)>& on_event);

  std::string id_;
  std::string line_;  // so far
  std::string type_;
  std::string data_;
  bool has_data_ = false;
};

}  // namespace onestep
