#include "worker/run/telemetry_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/write.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <optional>
#include <thread>

#include "common/durable_file.h"
#include "common/error.h"

namespace onestep {
namespace {

namespace fs = std::filesystem;
using boost::asio::ip::tcp;
using nlohmann::json;
using testing::ElementsAre;
using testing::IsEmpty;

// A coordinator in the test's own thread, one connection at a time: every step is waited for, none is timed.
class FakeCoordinator {
 public:
  explicit FakeCoordinator(const fs::path& address_file) : acceptor_(io_, {boost::asio::ip::address_v4::loopback(), 0}) {
    const std::string address = "127.0.0.1:" + std::to_string(acceptor_.local_endpoint().port());
    write_file_durably(address_file.string(), json{{"http", "127.0.0.1:1"}, {"telemetry", address}}.dump());
  }

  // The next connection; returns its hello, unanswered.
  json accept_hello() {
    frames_ = {};
    socket_.emplace(acceptor_.accept());
    const Message hello = receive();
    EXPECT_EQ(hello.type, MessageType::kHello);
    EXPECT_EQ(hello.sequence, 0U);
    return hello.body;
  }
  void accept_and_welcome() {
    accept_hello();
    send({.type = MessageType::kWelcome});
  }
  // The next message of any kind.
  Message receive() {
    std::array<char, 4096> bytes;
    for (;;) {
      if (auto message = frames_.next()) return *message;
      frames_.feed({bytes.data(), socket_->read_some(boost::asio::buffer(bytes))});
    }
  }
  Message receive_other_than_heartbeat() {
    for (;;) {
      Message message = receive();
      if (message.type != MessageType::kHeartbeat) return message;
    }
  }
  void send(const Message& message) { boost::asio::write(*socket_, boost::asio::buffer(encode_frame(message))); }
  void acknowledge(const Message& message) {
    send({.type = MessageType::kAcknowledge, .body = {{"sequence", message.sequence}}});
  }
  void hang_up() { socket_.reset(); }

 private:
  boost::asio::io_context io_;
  tcp::acceptor acceptor_;
  std::optional<tcp::socket> socket_;
  FrameReader frames_;
};

class TelemetryClientTest : public testing::Test {
 protected:
  TelemetryClientTest()
      : folder_(fs::temp_directory_path() / ("telemetry_client_test-" + std::to_string(getpid()) + "-" +
                                             testing::UnitTest::GetInstance()->current_test_info()->name())) {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  ~TelemetryClientTest() override { fs::remove_all(folder_); }

  TelemetryOptions options(int attempt = 2, int rank = 0) const {
    return {address_file().string(), outbox().string(), "distill-4", attempt, rank, 2};
  }
  fs::path address_file() const { return folder_ / "coordinator.address"; }
  fs::path outbox() const { return folder_ / "outbox"; }
  std::vector<std::string> outbox_files() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(outbox())) names.push_back(entry.path().filename().string());
    std::sort(names.begin(), names.end());
    return names;
  }
  static TelemetryCommand next_command(TelemetryClient& client) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (std::chrono::steady_clock::now() < deadline) {
      const auto commands = client.poll();
      if (!commands.empty()) return commands.front();
      std::this_thread::yield();
    }
    ADD_FAILURE() << "no command came";
    return {};
  }

  fs::path folder_;
};

const json kCheckpoint = {{"attempt", 2}, {"iteration", 300}};

TEST_F(TelemetryClientTest, WithoutACoordinatorNothingHappens) {
  TelemetryClient client;
  client.post(MessageType::kCheckpointCommitted, kCheckpoint);
  client.request_shards();
  EXPECT_THAT(client.poll(), IsEmpty());
  EXPECT_TRUE(client.drain(10));
}

TEST_F(TelemetryClientTest, SaysWhoItIs) {
  FakeCoordinator coordinator(address_file());
  TelemetryClient client(options(2, 1));
  const json hello = coordinator.accept_hello();
  EXPECT_EQ(hello["job"], "distill-4");
  EXPECT_EQ(hello["attempt"], 2);
  EXPECT_EQ(hello["rank"], 1);
  EXPECT_EQ(hello["ranks"], 2);
  EXPECT_EQ(hello["pid"], getpid());
  EXPECT_TRUE(hello["host"].is_string());
  EXPECT_TRUE(hello["commit"].is_string());
}

TEST_F(TelemetryClientTest, KeepsAMessageOnDiskUntilItIsAcknowledged) {
  FakeCoordinator coordinator(address_file());
  TelemetryClient client(options());
  client.post(MessageType::kCheckpointCommitted, kCheckpoint);
  EXPECT_THAT(outbox_files(), ElementsAre("a2-r0-1.cbor"));
  coordinator.accept_and_welcome();
  const Message message = coordinator.receive_other_than_heartbeat();
  EXPECT_EQ(message.type, MessageType::kCheckpointCommitted);
  EXPECT_EQ(message.sequence, 1U);
  EXPECT_EQ(message.body, kCheckpoint);
  EXPECT_FALSE(client.drain(0));
  EXPECT_THAT(outbox_files(), ElementsAre("a2-r0-1.cbor"));
  coordinator.acknowledge(message);
  EXPECT_TRUE(client.drain(20));
  EXPECT_THAT(outbox_files(), IsEmpty());
}

TEST_F(TelemetryClientTest, FindsARestartedCoordinatorAndSendsAgainWhatItDidNotAcknowledge) {
  TelemetryClient client(options());  // nobody is there yet
  client.post(MessageType::kShardDone, {{"attempt", 2}, {"index", 0}});
  client.post(MessageType::kShardDone, {{"attempt", 2}, {"index", 1}});
  {
    FakeCoordinator coordinator(address_file());
    coordinator.accept_and_welcome();
    coordinator.acknowledge(coordinator.receive_other_than_heartbeat());
    EXPECT_EQ(coordinator.receive_other_than_heartbeat().sequence, 2U);
  }  // ends without having acknowledged the second
  FakeCoordinator other_port(address_file());
  other_port.accept_and_welcome();
  const Message again = other_port.receive_other_than_heartbeat();
  EXPECT_EQ(again.sequence, 2U);
  EXPECT_EQ(again.body["index"], 1);
  other_port.acknowledge(again);
  EXPECT_TRUE(client.drain(20));
  EXPECT_THAT(outbox_files(), IsEmpty());
}

TEST_F(TelemetryClientTest, KeepsTheOrderOfPosting) {
  TelemetryClient client(options());
  client.post(MessageType::kProgress, {{"iteration", 1}});
  client.post(MessageType::kCheckpointCommitted, kCheckpoint);
  client.post(MessageType::kProgress, {{"iteration", 2}});
  client.post(MessageType::kFinalState, {{"attempt", 2}});
  FakeCoordinator coordinator(address_file());
  coordinator.accept_and_welcome();
  EXPECT_EQ(coordinator.receive_other_than_heartbeat().body["iteration"], 1);
  EXPECT_EQ(coordinator.receive_other_than_heartbeat().type, MessageType::kCheckpointCommitted);
  EXPECT_EQ(coordinator.receive_other_than_heartbeat().body["iteration"], 2);
  EXPECT_EQ(coordinator.receive_other_than_heartbeat().type, MessageType::kFinalState);
}

TEST_F(TelemetryClientTest, KeepsTheNewestReportsWhileNobodyListens) {
  TelemetryClient client(options());
  constexpr int kPosted = static_cast<int>(TelemetryClient::kQueuedReports) + 44;
  for (int i = 0; i < kPosted; ++i) client.post(MessageType::kProgress, {{"iteration", i}});
  FakeCoordinator coordinator(address_file());
  coordinator.accept_and_welcome();
  for (int i = 44; i < kPosted; ++i) EXPECT_EQ(coordinator.receive_other_than_heartbeat().body["iteration"], i);
  EXPECT_TRUE(client.drain(20));
}

TEST_F(TelemetryClientTest, BeatsWhenThereIsNothingElse) {
  FakeCoordinator coordinator(address_file());
  TelemetryClient client(options());
  coordinator.accept_and_welcome();
  EXPECT_EQ(coordinator.receive().type, MessageType::kHeartbeat);
  EXPECT_EQ(coordinator.receive().type, MessageType::kHeartbeat);
}

TEST_F(TelemetryClientTest, BringsCommands) {
  FakeCoordinator coordinator(address_file());
  TelemetryClient client(options());
  coordinator.accept_and_welcome();
  coordinator.send({.type = MessageType::kCheckpointNow});
  EXPECT_EQ(next_command(client).type, MessageType::kCheckpointNow);
  coordinator.send({.type = MessageType::kStop, .body = {{"reason", "cancelled"}}});
  const TelemetryCommand stop = next_command(client);
  EXPECT_EQ(stop.type, MessageType::kStop);
  EXPECT_EQ(stop.body["reason"], "cancelled");
}

TEST_F(TelemetryClientTest, AsksForShardsUntilItHasThem) {
  FakeCoordinator coordinator(address_file());
  TelemetryClient client(options());
  client.request_shards();
  coordinator.accept_and_welcome();
  EXPECT_EQ(coordinator.receive_other_than_heartbeat().type, MessageType::kLeaseRequest);
  coordinator.hang_up();
  coordinator.accept_and_welcome();
  EXPECT_EQ(coordinator.receive_other_than_heartbeat().type, MessageType::kLeaseRequest);
  coordinator.send({.type = MessageType::kShardPlan, .body = {{"shards", json::array()}}});
  EXPECT_EQ(next_command(client).type, MessageType::kShardPlan);
}

TEST_F(TelemetryClientTest, RankZeroBringsWhatEarlierAttemptsLeft) {
  {
    TelemetryClient earlier(options(1, 1));
    earlier.post(MessageType::kShardDone, {{"attempt", 1}, {"index", 5}});
  }
  std::ofstream(outbox() / "a1-r0-9.cbor") << "not a message";
  std::ofstream(outbox() / "note.txt") << "not ours";
  FakeCoordinator coordinator(address_file());
  TelemetryClient client(options(2, 0));
  client.post(MessageType::kCheckpointCommitted, kCheckpoint);
  coordinator.accept_and_welcome();
  const Message old = coordinator.receive_other_than_heartbeat();
  EXPECT_EQ(old.body, json({{"attempt", 1}, {"index", 5}, {"origin_attempt", 1}, {"origin_rank", 1}, {"origin_sequence", 1}}));
  const Message fresh = coordinator.receive_other_than_heartbeat();
  EXPECT_EQ(fresh.body, kCheckpoint);
  EXPECT_NE(fresh.sequence, old.sequence);
  coordinator.acknowledge(old);
  coordinator.acknowledge(fresh);
  EXPECT_TRUE(client.drain(20));
  EXPECT_THAT(outbox_files(), ElementsAre("a1-r0-9.cbor", "note.txt"));  // kept for inspection
}

TEST_F(TelemetryClientTest, OtherRanksLeaveEarlierAttemptsAlone) {
  { TelemetryClient(options(1, 1)).post(MessageType::kShardDone, {{"attempt", 1}}); }
  TelemetryClient client(options(2, 1));
  EXPECT_TRUE(client.drain(0));
  EXPECT_THAT(outbox_files(), ElementsAre("a1-r1-1.cbor"));
}

TEST_F(TelemetryClientTest, RefusedForGoodItTellsAndStops) {
  FakeCoordinator coordinator(address_file());
  TelemetryClient client(options());
  client.post(MessageType::kCheckpointCommitted, kCheckpoint);
  coordinator.accept_hello();
  coordinator.send({.type = MessageType::kRefused, .body = {{"code", "conflict"}, {"reason", "attempt 3 is current"}}});
  const TelemetryCommand command = next_command(client);
  EXPECT_EQ(command.type, MessageType::kRefused);
  EXPECT_EQ(command.body["reason"], "attempt 3 is current");
  EXPECT_FALSE(client.drain(60));  // at once: nobody will acknowledge
  EXPECT_THAT(outbox_files(), ElementsAre("a2-r0-1.cbor"));
}

TEST_F(TelemetryClientTest, RefusedForNowItTriesAgain) {
  FakeCoordinator coordinator(address_file());
  TelemetryClient client(options());
  coordinator.accept_hello();
  coordinator.send({.type = MessageType::kRefused, .body = {{"code", "io"}, {"reason", "disk full"}}});
  coordinator.hang_up();
  coordinator.accept_and_welcome();
  EXPECT_EQ(coordinator.receive().type, MessageType::kHeartbeat);
  EXPECT_THAT(client.poll(), IsEmpty());
}

TEST_F(TelemetryClientTest, SendsWhatTheDiskDidNotTake) {
  FakeCoordinator coordinator(address_file());
  TelemetryClient client(options());
  fs::remove_all(outbox());
  EXPECT_NO_THROW(client.post(MessageType::kCheckpointCommitted, kCheckpoint));
  coordinator.accept_and_welcome();
  const Message message = coordinator.receive_other_than_heartbeat();
  EXPECT_EQ(message.body, kCheckpoint);
  coordinator.acknowledge(message);
  EXPECT_TRUE(client.drain(20));
}

TEST_F(TelemetryClientTest, NeverWaitsForACoordinatorThatDoesNotRead) {
  FakeCoordinator coordinator(address_file());
  TelemetryClient client(options());
  coordinator.accept_and_welcome();
  const std::string blob(100'000, 'x');
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < 300; ++i) client.post(MessageType::kProgress, {{"blob", blob}});
  // 30 MB fit no socket buffer. Encoding them takes well under a second; waiting would take forever.
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
}

TEST_F(TelemetryClientTest, RefusesWhatNoFrameCanHold) {
  TelemetryClient client(options());
  EXPECT_THROW(client.post(MessageType::kProgress, {{"blob", std::string(kMaxFrameBytes, 'x')}}), Error);
  EXPECT_THROW(client.post(MessageType::kProgress, json::array()), Error);
  EXPECT_TRUE(client.drain(0));
}

}  // namespace
}  // namespace onestep
