#include "coordinator/telemetry_listener.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_future.hpp>
#include <boost/asio/write.hpp>

#include <poll.h>

#include <random>
#include <stdexcept>
#include <thread>

#include "coordinator/socket_count.h"

namespace onestep {
namespace {

using boost::asio::ip::tcp;
using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

// A listener on a thread of its own, before a coordinator that knows job "distill-4" in its
// attempt 2.
class Listener {
 public:
  explicit Listener(TelemetryLimits limits = {})
      : listener_(io_, limits,
                  {.hello = [](const Hello& hello) { return answer_hello(hello); },
                   .messages =
                       [this](const std::vector<ReceivedMessage>& messages) {
                         std::vector<MessageAnswer> answers;
                         for (const auto& [from, message] : messages) answers.push_back(answer(from, message));
                         return answers;
                       }}) {
    const std::string address = listener_.address();
    port_ = static_cast<std::uint16_t>(std::stoi(address.substr(address.find(':') + 1)));
    listener_.start();
    thread_ = std::thread([this] { io_.run(); });
  }
  ~Listener() {
    boost::asio::post(io_, [this] { listener_.stop(); });
    thread_.join();
  }

  std::uint16_t port() const { return port_; }
  template <class Function>
  auto on_thread(Function function) {
    return boost::asio::post(io_, boost::asio::use_future(std::move(function))).get();
  }
  // To a rank of attempt 2; -1: to all.
  int send(int rank, const Message& message) {
    return on_thread([&] { return listener_.send({"distill-4", 2, rank}, message); });
  }
  int send_to_attempt(int attempt) {
    return on_thread([&] {
      return listener_.send({"distill-4", attempt, -1}, {.type = MessageType::kStop});
    });
  }
  int num_connections() {
    return on_thread([&] { return listener_.num_connections(); });
  }
  std::vector<std::string> stored() {
    return on_thread([&] { return stored_; });
  }

 private:
  static HelloAnswer answer_hello(const Hello& hello) {
    if (hello.job != "distill-4") return {Refusal{ErrorCode::kNotFound, "no job " + hello.job}, {}};
    if (hello.attempt != 2)
      return {Refusal{ErrorCode::kConflict, "attempt 2 is the current one"}, {}};
    if (hello.rank == 3) return {std::nullopt, {{.type = MessageType::kCheckpointNow}}};
    return {};
  }
  MessageAnswer answer(const RankId& from, const Message& message) {
    if (message.body.value("fence", false)) {
      return {Refusal{ErrorCode::kConflict, "attempt 3 is the current one"}, std::nullopt, {}};
    }
    stored_.push_back(std::to_string(from.rank) + ":" + message.body.dump());
    MessageAnswer answer;
    if (must_be_acknowledged(message.type)) answer.acknowledge = message.sequence;
    if (message.type == MessageType::kLeaseRequest)
      answer.replies = {{.type = MessageType::kShardPlan}};
    return answer;
  }

  boost::asio::io_context io_;
  std::vector<std::string> stored_;
  TelemetryListener listener_;
  std::uint16_t port_ = 0;
  std::thread thread_;
};

class Rank {
 public:
  explicit Rank(const Listener& listener) : socket_(io_) {
    socket_.connect({boost::asio::ip::make_address("127.0.0.1"), listener.port()});
  }
  void send_bytes(const std::string& bytes) {
    boost::system::error_code ignored;  // the other side may have closed by now
    boost::asio::write(socket_, boost::asio::buffer(bytes), ignored);
  }
  void send(const Message& message) { send_bytes(encode_frame(message)); }
  void hello(const std::string& job = "distill-4", int attempt = 2, int rank = 0) {
    send({.type = MessageType::kHello, .body = hello_body(job, attempt, rank)});
  }
  static json hello_body(const std::string& job, int attempt, int rank) {
    return {{"job", job}, {"attempt", attempt}, {"rank", rank},   {"ranks", 4},
            {"pid", 77},  {"host", "here"},     {"commit", "abc"}};
  }
  // nullopt: the other side has closed.
  std::optional<Message> receive() {
    while (true) {
      if (std::optional<Message> message = frames_.next()) return message;
      pollfd readable{socket_.native_handle(), POLLIN, 0};
      if (::poll(&readable, 1, 20'000) != 1) throw std::runtime_error("no answer in 20 s");
      char bytes[4096];
      boost::system::error_code error;
      const std::size_t size = socket_.read_some(boost::asio::buffer(bytes), error);
      if (error) return std::nullopt;
      frames_.feed({bytes, size});
    }
  }
  void expect_refused(const std::string& code, const std::string& reason) {
    const std::optional<Message> message = receive();
    ASSERT_TRUE(message);
    EXPECT_EQ(message->type, MessageType::kRefused);
    EXPECT_EQ(message->body.value("code", ""), code);
    EXPECT_THAT(message->body.value("reason", ""), HasSubstr(reason));
    EXPECT_FALSE(receive()) << "the connection is still open";
  }
  void expect_welcome() {
    const std::optional<Message> message = receive();
    ASSERT_TRUE(message);
    EXPECT_EQ(message->type, MessageType::kWelcome);
  }

 private:
  boost::asio::io_context io_;
  tcp::socket socket_;
  FrameReader frames_;
};

Message checkpoint(std::uint64_t sequence, json body = json::object()) {
  return {.type = MessageType::kCheckpointCommitted, .sequence = sequence, .body = std::move(body)};
}

TEST(TelemetryListener, WelcomesThenAcknowledgesWhatWasStored) {
  Listener listener;
  Rank rank(listener);
  rank.hello();
  rank.expect_welcome();
  rank.send({.type = MessageType::kHeartbeat});
  rank.send(checkpoint(7, {{"iteration", 30}}));
  const std::optional<Message> answer = rank.receive();
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->type, MessageType::kAcknowledge);
  EXPECT_EQ(answer->body, json({{"sequence", 7}}));
  EXPECT_THAT(listener.stored(), ElementsAre("0:{}", "0:{\"iteration\":30}"));
}

TEST(TelemetryListener, RefusesAnUnknownJob) {
  Listener listener;
  Rank rank(listener);
  rank.hello("other-9");
  rank.send(checkpoint(1));
  rank.expect_refused("not_found", "other-9");
  EXPECT_TRUE(listener.stored().empty());
}

TEST(TelemetryListener, RefusesAStaleAttempt) {
  Listener listener;
  Rank rank(listener);
  rank.hello("distill-4", 1);
  rank.send(checkpoint(1));
  rank.expect_refused("conflict", "attempt 2 is the current one");
  EXPECT_TRUE(listener.stored().empty());
}

TEST(TelemetryListener, RefusesAnAttemptThatWasReplacedMeanwhile) {
  Listener listener;
  Rank rank(listener);
  rank.hello();
  rank.expect_welcome();
  rank.send(checkpoint(1, {{"fence", true}}));
  rank.expect_refused("conflict", "attempt 3 is the current one");
  EXPECT_TRUE(listener.stored().empty());
}

TEST(TelemetryListener, RefusesAnotherVersion) {
  Listener listener;
  Rank rank(listener);
  std::string frame =
      encode_frame({.type = MessageType::kHello, .body = Rank::hello_body("distill-4", 2, 0)});
  frame[4] = static_cast<char>(kProtocolVersion + 1);
  rank.send_bytes(frame);
  rank.expect_refused("corrupt", "version");
}

TEST(TelemetryListener, RefusesAMalformedHello) {
  const std::vector<std::pair<json, std::string>> cases = {
      {json::object(), "job"},
      {{{"job", "distill-4"}, {"attempt", "2"}, {"rank", 0}, {"ranks", 4}}, "attempt"},
      {{{"job", "distill-4"}, {"attempt", 2}, {"rank", 4}, {"ranks", 4}}, "rank"},
      {{{"job", "distill-4"}, {"attempt", 2}, {"rank", 0}, {"ranks", 4}, {"pid", 1}, {"host", 7}},
       "host"}};
  Listener listener;
  for (const auto& [body, reason] : cases) {
    Rank rank(listener);
    rank.send({.type = MessageType::kHello, .body = body});
    rank.expect_refused("corrupt", reason);
  }
}

TEST(TelemetryListener, RefusesWhatIsOutOfOrder) {
  Listener listener;
  Rank silent(listener);
  silent.send(checkpoint(1));
  silent.expect_refused("corrupt", "first message");

  Rank twice(listener);
  twice.hello();
  twice.expect_welcome();
  twice.hello();
  twice.expect_refused("corrupt", "after its hello");

  Rank commander(listener);
  commander.hello();
  commander.expect_welcome();
  commander.send({.type = MessageType::kStop});
  commander.expect_refused("corrupt", "after its hello");

  Rank unnumbered(listener);
  unnumbered.hello();
  unnumbered.expect_welcome();
  unnumbered.send(checkpoint(0));
  unnumbered.expect_refused("corrupt", "sequence");
  EXPECT_TRUE(listener.stored().empty());
}

TEST(TelemetryListener, ClosesWithoutAHelloInTime) {
  Listener listener({.hello_timeout = std::chrono::milliseconds(50)});
  Rank rank(listener);
  EXPECT_FALSE(rank.receive());
}

TEST(TelemetryListener, AHelloStopsTheClock) {
  Listener listener({.hello_timeout = std::chrono::milliseconds(50)});
  Rank rank(listener);
  rank.hello();
  rank.expect_welcome();
  Rank idle(listener);
  EXPECT_FALSE(idle.receive());  // by now the first one's time would be over too
  EXPECT_EQ(listener.send(0, {.type = MessageType::kCheckpointNow}), 1);
  EXPECT_TRUE(rank.receive());
}

TEST(TelemetryListener, SendsCommandsToTheRanksNamed) {
  Listener listener;
  Rank zero(listener);
  zero.hello("distill-4", 2, 0);
  zero.expect_welcome();
  Rank one(listener);
  one.hello("distill-4", 2, 1);
  one.expect_welcome();
  EXPECT_EQ(listener.send(1, {.type = MessageType::kCheckpointNow}), 1);
  EXPECT_EQ(listener.send(-1, {.type = MessageType::kStop, .body = {{"reason", "cancel"}}}), 2);
  EXPECT_EQ(listener.send(2, {.type = MessageType::kCheckpointNow}), 0);
  EXPECT_EQ(one.receive().value().type, MessageType::kCheckpointNow);
  EXPECT_EQ(one.receive().value().type, MessageType::kStop);
  EXPECT_EQ(zero.receive().value().body, json({{"reason", "cancel"}}));
}

TEST(TelemetryListener, ANewConnectionReplacesTheRanksOlderOne) {
  Listener listener;
  Rank older(listener);
  older.hello();
  older.expect_welcome();
  Rank newer(listener);
  newer.hello();
  newer.expect_welcome();
  EXPECT_FALSE(older.receive());
  EXPECT_EQ(listener.send(0, {.type = MessageType::kCheckpointNow}), 1);
  EXPECT_TRUE(newer.receive());
}

TEST(TelemetryListener, SendsOnlyToTheAttemptNamed) {
  Listener listener;
  Rank rank(listener);
  rank.hello();
  rank.expect_welcome();
  EXPECT_EQ(listener.send_to_attempt(1), 0);
  EXPECT_EQ(listener.send_to_attempt(2), 1);
}

TEST(TelemetryListener, SendsWhatIsDueAfterTheWelcome) {
  Listener listener;
  Rank rank(listener);
  rank.hello("distill-4", 2, 3);
  rank.expect_welcome();
  EXPECT_EQ(rank.receive().value().type, MessageType::kCheckpointNow);
}

TEST(TelemetryListener, AnswersALeaseRequest) {
  Listener listener;
  Rank rank(listener);
  rank.hello();
  rank.expect_welcome();
  rank.send({.type = MessageType::kLeaseRequest});
  EXPECT_EQ(rank.receive().value().type, MessageType::kShardPlan);
}

TEST(TelemetryListener, ItsSocketsAreClosedOnExec) {
  Listener listener;
  Rank rank(listener);
  rank.hello();
  rank.expect_welcome();
  EXPECT_EQ(inheritable_sockets_of_port(listener.port()), 0);
}

TEST(TelemetryListener, ForgetsARankThatIsGone) {
  Listener listener;
  {
    Rank rank(listener);
    rank.hello("distill-4", 2, 1);
    rank.expect_welcome();
  }
  while (listener.num_connections() > 0) std::this_thread::yield();
  EXPECT_EQ(listener.send(1, {.type = MessageType::kCheckpointNow}), 0);
}

TEST(TelemetryListener, ClosesAConnectionThatDoesNotRead) {
  Listener listener({.queued_bytes = 1 << 20});
  Rank rank(listener);
  rank.hello();
  rank.expect_welcome();
  const Message large{.type = MessageType::kStop, .body = {{"reason", std::string(500'000, 'x')}}};
  int num_sent = 0;
  while (listener.send(0, large) > 0 && num_sent < 1000) ++num_sent;
  EXPECT_LT(num_sent, 1000);
}

TEST(TelemetryListener, TakesNoMoreConnectionsThanItsLimit) {
  Listener listener({.connections = 2});
  Rank first(listener);
  first.hello("distill-4", 2, 0);
  first.expect_welcome();
  {
    Rank second(listener);
    second.hello("distill-4", 2, 1);
    second.expect_welcome();
    Rank third(listener);
    EXPECT_FALSE(third.receive()) << "closed without a word";
  }
  while (listener.num_connections() > 1) std::this_thread::yield();
  Rank again(listener);
  again.hello("distill-4", 2, 1);
  again.expect_welcome();
}

TEST(TelemetryListener, RefusesAFrameThatIsTooLargeBeforeItHasCome) {
  Listener listener;
  Rank rank(listener);
  rank.hello();
  rank.expect_welcome();
  std::string head = encode_frame(checkpoint(1)).substr(0, 14);  // length, version, type, sequence
  const std::uint32_t length = kMaxFrameBytes + 1;
  for (std::size_t i = 0; i < 4; ++i) head[i] = static_cast<char>(length >> (8 * i));
  rank.send_bytes(head);
  rank.expect_refused("corrupt", std::to_string(kMaxFrameBytes));
  EXPECT_TRUE(listener.stored().empty());
}

TEST(TelemetryListener, RefusesABodyThatIsNestedTooDeep) {
  Listener listener;
  Rank rank(listener);
  rank.hello();
  rank.expect_welcome();
  json body = 1;
  for (int i = 0; i < 33; ++i) body = {{"x", body}};
  rank.send(checkpoint(1, body));
  rank.expect_refused("corrupt", "at most 32");
  EXPECT_TRUE(listener.stored().empty());
}

TEST(TelemetryListener, SurvivesAThousandRandomStreams) {
  Listener listener;
  Rank witness(listener);
  witness.hello();
  witness.expect_welcome();
  std::mt19937_64 random(20240607);
  const std::string good =
      encode_frame({.type = MessageType::kHello, .body = Rank::hello_body("distill-4", 2, 1)}) +
      encode_frame(checkpoint(1, {{"iteration", 30}}));
  for (int stream = 0; stream < 1000; ++stream) {
    std::string bytes(random() % 300, '\0');
    for (char& byte : bytes) byte = static_cast<char>(random());
    if (stream % 2 == 0) {  // a good stream with a few bytes changed reaches further in
      bytes = good;
      for (int change = 0; change < 3; ++change)
        bytes[random() % bytes.size()] = static_cast<char>(random());
    }
    Rank rank(listener);
    rank.send_bytes(bytes);
  }
  witness.send(checkpoint(9));
  const std::optional<Message> answer = witness.receive();
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->body, json({{"sequence", 9}}));
  while (listener.num_connections() > 1) std::this_thread::yield();  // every other one was closed
}

}  // namespace
}  // namespace onestep
