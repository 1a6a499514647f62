#include "coordinator/event_cursor.h"

#include <charconv>

namespace onestep {
namespace {

// Digits up to `end` of the text or a dot, which is taken off as well.
template <class Number>
bool take_number(std::string_view& text, Number& value) {
  if (text.empty() || text.front() == '-') return false;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (failure != std::errc()) return false;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return true;
}

bool take_dot(std::string_view& text) {
  if (text.empty() || text.front() != '.') return false;
  text.remove_prefix(1);
  return true;
}

}  // namespace

std::string to_string(const EventCursor& cursor) {
  std::string text = std::to_string(cursor.number);
  if (cursor.log == LogPosition{}) return text;
  return text + "." + std::to_string(cursor.log.attempt) + "." + std::to_string(cursor.log.offset);
}

std::optional<EventCursor> event_cursor_from_string(std::string_view text) {
  EventCursor cursor;
  if (!take_number(text, cursor.number)) return std::nullopt;
  if (text.empty()) return cursor;
  const bool whole = take_dot(text) && take_number(text, cursor.log.attempt) && take_dot(text) &&
                     take_number(text, cursor.log.offset) && text.empty();
  if (!whole) return std::nullopt;
  return cursor;
}

}  // namespace onestep
