// Where in a stream of events a reader stands; its text is the id of a server-sent event.
#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace onestep {

// How far the log of rank 0 was read, attempt by attempt.
struct LogPosition {
  int attempt = 0;  // 0: nothing yet
  std::int64_t offset = 0;
  auto operator<=>(const LogPosition&) const = default;
};

struct EventCursor {
  std::int64_t number = 0;  // of the last event
  LogPosition log;
  auto operator<=>(const EventCursor&) const = default;
};

// "1204" while no log was read, else "1204.2.8192": event, attempt, byte.
std::string to_string(const EventCursor& cursor);
// nullopt for what is neither.
std::optional<EventCursor> event_cursor_from_string(std::string_view text);

}  // namespace onestep
