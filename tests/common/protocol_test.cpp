#include "common/protocol.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/error.h"

namespace onestep {
namespace {

using nlohmann::json;
using testing::HasSubstr;

std::string bytes(std::initializer_list<int> values) {
  std::string text;
  for (const int value : values) text += static_cast<char>(value);
  return text;
}

// A frame of version 1, type heartbeat, sequence 0 around any body.
std::string frame_around(const std::string& body) {
  const std::size_t length = 10 + body.size();
  return bytes({static_cast<int>(length & 255), static_cast<int>(length >> 8 & 255),
                static_cast<int>(length >> 16 & 255), 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0}) +
         body;
}

std::string refusal_of(const std::string& stream) {
  FrameReader reader;
  reader.feed(stream);
  try {
    while (reader.next()) {
    }
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kCorrupt);
    return error.what();
  }
  ADD_FAILURE() << "the stream was accepted";
  return "";
}

TEST(EncodeFrame, HasTheDocumentedBytes) {
  const Message message{MessageType::kAcknowledge, 0x0102030405060708u, {{"sequence", 5}}};
  EXPECT_EQ(encode_frame(message), bytes({21, 0, 0, 0, 1, 66, 8, 7, 6, 5, 4, 3, 2, 1, 0xa1, 0x68}) +
                                       "sequence" + bytes({5}));
}

TEST(FrameReader, GivesBackWhatWasEncodedAByteAtATime) {
  const std::vector<Message> messages = {
      {MessageType::kHello, 0, {{"job", "distill-4"}, {"rank", 1}, {"pid", 4'000'000'000u}}},
      {MessageType::kProgress,
       0,
       {{"metrics", {{"loss", 0.25}, {"tiny", 1e-30}}}, {"seconds_left", -1}}},
      {MessageType::kShardPlan, 0, {{"shards", json::array({{{"index", 0}}, {{"index", 1}}})}}},
      {MessageType::kFinalState,
       7,
       {{"outcome", {{"error", std::string(70'000, 'x')}, {"done", true}, {"none", nullptr}}}}},
      {MessageType::kHeartbeat, 0, json::object()},
  };
  std::string stream;
  for (const Message& message : messages) stream += encode_frame(message);
  FrameReader reader;
  std::vector<Message> read;
  for (const char c : stream) {
    reader.feed(std::string_view(&c, 1));
    while (auto message = reader.next()) read.push_back(*message);
  }
  ASSERT_EQ(read.size(), messages.size());
  for (std::size_t i = 0; i < read.size(); ++i) {
    EXPECT_EQ(read[i].type, messages[i].type);
    EXPECT_EQ(read[i].sequence, messages[i].sequence);
    EXPECT_EQ(read[i].body, messages[i].body);
  }
}

TEST(FrameReader, RefusesForeignHeadersBeforeTheRestArrives) {
  EXPECT_THAT(refusal_of("GET / HTTP/1.1\r\n"), HasSubstr("expected a length from 11 to 1048576"));
  EXPECT_THAT(refusal_of(bytes({10, 0, 0, 0})), HasSubstr("found 10"));
  EXPECT_THAT(refusal_of(bytes({1, 0, 16, 0})), HasSubstr("found 1048577"));
  EXPECT_THAT(refusal_of(bytes({11, 0, 0, 0, 2})),
              HasSubstr("expected protocol version 1, found 2"));
  EXPECT_THAT(refusal_of(bytes({11, 0, 0, 0, 1, 8})),
              HasSubstr("expected a known message type, found 8"));
  EXPECT_THAT(refusal_of(bytes({11, 0, 0, 0, 1, 0})), HasSubstr("found 0"));
  EXPECT_THAT(refusal_of(bytes({11, 0, 0, 0, 1, 70})), HasSubstr("found 70"));
}

TEST(FrameReader, RefusesBodiesThatAreNoJsonMap) {
  EXPECT_THAT(refusal_of(frame_around(bytes({0x80}))), HasSubstr("expected a CBOR map"));  // a list
  EXPECT_THAT(refusal_of(frame_around(bytes({0xa0, 0}))),
              HasSubstr("found 1 bytes more"));  // trailing
  EXPECT_THAT(refusal_of(frame_around(bytes({0xa1, 0x61, 'a'}))),
              HasSubstr("found its end"));  // no value
  EXPECT_THAT(refusal_of(frame_around(bytes({0xa1, 0x65, 'a', 1}))),
              HasSubstr("found its end"));  // short text
  EXPECT_THAT(refusal_of(frame_around(bytes({0xa1, 1, 1}))),
              HasSubstr("text keys"));  // integer key
  EXPECT_THAT(refusal_of(frame_around(bytes({0xa1, 0x61, 'a', 0x41, 0}))),
              HasSubstr("byte string"));
  EXPECT_THAT(refusal_of(frame_around(bytes({0xa1, 0x61, 'a', 0xc1, 0}))), HasSubstr("tag"));
  EXPECT_THAT(refusal_of(frame_around(bytes({0xbf, 0xff}))), HasSubstr("definite length"));
  EXPECT_THAT(refusal_of(frame_around(bytes({0xa1, 0x61, 0xff, 1}))), HasSubstr("UTF-8"));
  // A list that claims 2^40 items.
  EXPECT_THAT(refusal_of(frame_around(bytes({0xa1, 0x61, 'a', 0x9b, 0, 0, 1, 0, 0, 0, 0, 0}))),
              HasSubstr("found 1099511627776"));
}

TEST(FrameReader, RefusesDeepBodiesWithoutRecursion) {
  // A million lists in one another, each with one item, would exhaust the stack of a recursive
  // decoder.
  const std::string deep = bytes({0xa1, 0x61, 'a'}) + std::string(1'000'000, '\x81');
  EXPECT_THAT(refusal_of(frame_around(deep)), HasSubstr("at most 32 levels"));
}

TEST(EncodeFrame, RefusesWhatAReaderWouldRefuse) {
  EXPECT_THROW(encode_frame({MessageType::kHeartbeat, 0, json::array()}), Error);
  EXPECT_THROW(
      encode_frame({MessageType::kHeartbeat, 0, {{"x", std::string(kMaxFrameBytes, 'x')}}}), Error);
}

TEST(MustBeAcknowledged, HoldsForWhatMustNotBeLost) {
  for (const auto type :
       {MessageType::kCheckpointCommitted, MessageType::kShardDone, MessageType::kFinalState}) {
    EXPECT_TRUE(must_be_acknowledged(type));
  }
  for (const auto type :
       {MessageType::kHello, MessageType::kHeartbeat, MessageType::kProgress,
        MessageType::kLeaseRequest, MessageType::kAcknowledge, MessageType::kStop}) {
    EXPECT_FALSE(must_be_acknowledged(type));
  }
}

}  // namespace
}  // namespace onestep
