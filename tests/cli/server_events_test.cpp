#include "cli/server_events.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "common/error.h"

namespace onestep {
namespace {

using ::testing::ElementsAre;

// "id|type|data" of each event; the text is fed in pieces of `size` bytes.
std::vector<std::string> parsed(const std::string& text, std::size_t size, const std::string& id = "") {
  std::vector<std::string> events;
  ServerEventParser parser(id);
  for (std::size_t at = 0; at < text.size(); at += size) {
    parser.feed(text.substr(at, size), [&](const ServerEvent& event) {
      events.push_back(event.id + "|" + event.type + "|" + event.data);
    });
  }
  return events;
}

TEST(ServerEventParser, TakesEventsInPiecesOfAnySize) {
  const std::string text = "retry: 1000\n\nid: 7\nevent: state\ndata: {\"a\":1}\n\n: quiet\n\nevent: progress\ndata: x\n\n";
  for (std::size_t size = 1; size <= text.size(); ++size) {
    EXPECT_THAT(parsed(text, size), ElementsAre("7|state|{\"a\":1}", "7||", "7|progress|x")) << size;
  }
}

TEST(ServerEventParser, KeepsTheIdThatItStartsFrom) {
  EXPECT_THAT(parsed("event: progress\ndata: x\n\n", 5, "42"), ElementsAre("42|progress|x"));
}

TEST(ServerEventParser, JoinsLinesOfDataAndTakesBothLineEnds) {
  EXPECT_THAT(parsed("data: a\r\ndata:b\r\ndata\r\n\r\n", 3), ElementsAre("|message|a\nb\n"));
}

TEST(ServerEventParser, AnEventThatIsCutOffIsNone) {
  EXPECT_TRUE(parsed("id: 1\nevent: state\ndata: {}\n", 100).empty());
}

TEST(ServerEvents, ABodyIsAnObject) {
  EXPECT_EQ(body_of({"1", "state", R"({"job":"a"})"}).at("job"), "a");
  for (const char* data : {"", "{", "[1]", "7"}) {
    try {
      body_of({"1", "state", data});
      FAIL() << data;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kUnavailable) << data;
    }
  }
}

}  // namespace
}  // namespace onestep
