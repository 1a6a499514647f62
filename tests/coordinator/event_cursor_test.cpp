#include "coordinator/event_cursor.h"

#include <gtest/gtest.h>

namespace onestep {
namespace {

TEST(EventCursor, ItsTextLeadsBack) {
  for (const EventCursor& cursor :
       {EventCursor{}, EventCursor{1204, {}}, EventCursor{1204, {2, 8192}}, EventCursor{0, {1, 0}},
        EventCursor{INT64_MAX, {INT32_MAX, INT64_MAX}}}) {
    EXPECT_EQ(event_cursor_from_string(to_string(cursor)), cursor) << to_string(cursor);
  }
  EXPECT_EQ(to_string({7, {}}), "7");
  EXPECT_EQ(to_string({7, {2, 30}}), "7.2.30");
}

TEST(EventCursor, NothingElseIsOne) {
  for (const char* text : {"", "-1", "a", "7.", "7.2", "7.2.", "7.2.3.4", "7.2.3 ", " 7", "+7",
                           "7.-2.3", "99999999999999999999", "7.99999999999.0", "0x7"}) {
    EXPECT_EQ(event_cursor_from_string(text), std::nullopt) << text;
  }
}

}  // namespace
}  // namespace onestep
