// What hostile clients try over HTTP: requests that mean two things, that never end, that are too large; TLS at the door.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_future.hpp>

#include <chrono>
#include <future>
#include <random>
#include <thread>

#include "cli/client.h"
#include "common/error.h"
#include "common/private_ca.h"
#include "coordinator/body_stream.h"
#include "coordinator/http_server.h"
#include "support/files.h"
#include "support/temp_folder.h"

namespace onestep {
namespace {

using testing::AnyOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;
using std::chrono::milliseconds;

class OneEvent : public BodyStream {
 public:
  std::optional<std::string> next() override { return std::exchange(text_, ""); }
  void on_ready(std::function<void()>) override {}

 private:
  std::string text_ = "id: 1\nevent: state\ndata: {\"job\":\"d-1\"}\n\n";
};

// Answers with what it was asked, on a thread of its own.
class Echo {
 public:
  explicit Echo(HttpLimits limits = {}, const std::optional<TlsFiles>& tls = std::nullopt)
      : server_(io_, {"127.0.0.1", 0}, limits, [](const HttpRequest& request) { return answer(request); }, tls) {
    server_.start();
    thread_ = std::thread([this] { io_.run(); });
  }
  ~Echo() {
    boost::asio::post(io_, [this] { server_.stop(); });
    work_.reset();
    thread_.join();
  }
  std::uint16_t port() { return server_.address().port; }
  int num_connections() {
    return boost::asio::post(io_, boost::asio::use_future([this] { return server_.num_connections(); })).get();
  }

 private:
  static HttpResponse answer(const HttpRequest& request) {
    HttpResponse response;
    if (request.target == "/events") {
      response.content_type = "text/event-stream";
      response.stream = std::make_shared<OneEvent>();
    } else if (request.target == "/large") {
      response.body = std::string(64 << 20, 'x');  // more than any buffer on the way takes
    } else {
      response.body = "{\"seen\":\"" + request.method + " " + request.target + "\"}";
    }
    return response;
  }
  boost::asio::io_context io_;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_ = boost::asio::make_work_guard(io_);
  HttpServer server_;
  std::thread thread_;
};

class RawSocket {
 public:
  explicit RawSocket(std::uint16_t port) : descriptor_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ = ::connect(descriptor_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  }
  RawSocket(RawSocket&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)), connected_(other.connected_) {}
  RawSocket(const RawSocket&) = delete;
  ~RawSocket() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  bool send(const std::string& text) const {
    return ::send(descriptor_, text.data(), text.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(text.size());
  }
  void finish() const { ::shutdown(descriptor_, SHUT_WR); }
  // Until the other side closes or the time is over.
  [[nodiscard]] std::string receive_all(milliseconds limit = milliseconds(5'000)) const {
    std::string text(1 << 16, '\0');
    std::size_t size = 0;
    const auto end = std::chrono::steady_clock::now() + limit;
    while (size < text.size()) {
      const auto left = std::chrono::duration_cast<milliseconds>(end - std::chrono::steady_clock::now()).count();
      pollfd state{descriptor_, POLLIN, 0};
      if (left <= 0 || ::poll(&state, 1, static_cast<int>(left)) <= 0) break;
      const ssize_t count = ::recv(descriptor_, text.data() + size, text.size() - size, 0);
      if (count <= 0) break;
      size += static_cast<std::size_t>(count);
    }
    text.resize(size);
    return text;
  }
  [[nodiscard]] bool is_closed() const {
    pollfd state{descriptor_, POLLIN | POLLRDHUP, 0};
    return ::poll(&state, 1, 0) > 0 && (state.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
  }

 private:
  int descriptor_;
  bool connected_ = false;
};

// Everything that came back for `bytes` on one connection.
std::string exchange(std::uint16_t port, const std::string& bytes) {
  const RawSocket socket(port);
  socket.send(bytes);
  socket.finish();
  return socket.receive_all();
}

TEST(HttpSmuggling, ARequestThatMeansTwoThingsIsRefusedAndNothingBehindItIsRead) {
  Echo server;
  const std::string hidden = "GET /hidden HTTP/1.1\r\nHost: localhost\r\n\r\n";
  const std::string post = "POST /a HTTP/1.1\r\nHost: localhost\r\n";
  const std::vector<std::string> attacks = {
      post + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden,
      post + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + hidden,
      post + "Content-Length: 0\r\nContent-Length: 44\r\n\r\n" + hidden,
      post + "Content-Length: 0\r\nContent-Length: 0\r\n\r\n" + hidden,
      post + "Content-Length: 0, 44\r\n\r\n" + hidden,
      post + "Content-Length: +0\r\n\r\n" + hidden,
      post + "Content-Length: -1\r\n\r\n" + hidden,
      post + "Content-Length: 0x0\r\n\r\n" + hidden,
      post + "Content-Length : 0\r\n\r\n" + hidden,
      post + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + hidden,
      post + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + hidden,
      post + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + hidden,
      post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden,
      post + "Transfer-Encoding: chunked\r\n\r\nZ\r\n" + hidden,
      post + "Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n" + hidden,
      "GET /a HTTP/1.1\r\nHost: localhost\r\nHost: other\r\n\r\n" + hidden,
      "GET /a HTTP/1.1\r\n\r\n" + hidden,
      "GET http://other/a HTTP/1.1\r\nHost: localhost\r\n\r\n" + hidden,
      "GET /a HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n" + hidden,
      "GET /a HTTP/1.1\r\nHost: localhost\r\nX: a\rb\r\n\r\n" + hidden,
      "GET /a HTTP/1.1\r\nHost: localhost\r\nX: a\n\n" + hidden,
      "GET /a\r\n\r\n" + hidden,
      "GET /a HTTP/2.0\r\nHost: localhost\r\n\r\n" + hidden,
      "GET  /a HTTP/1.1\r\nHost: localhost\r\n\r\n" + hidden};
  for (const std::string& attack : attacks) {
    const std::string answer = exchange(server.port(), attack);
    EXPECT_THAT(answer, testing::Not(HasSubstr("/hidden"))) << attack;
    EXPECT_THAT(answer, AnyOf(IsEmpty(), StartsWith("HTTP/1.1 400 "))) << attack;
  }
  EXPECT_THAT(exchange(server.port(), hidden + hidden), HasSubstr("/hidden")) << "two honest requests are fine";
}

TEST(HttpLimits, SlowClientsAreDroppedAndOthersServedMeanwhile) {
  HttpLimits limits;
  limits.timeout = milliseconds(700);
  limits.connections = 100;
  Echo server(limits);
  // Slow headers, slow bodies, and those that say nothing.
  std::vector<RawSocket> slow;
  for (int i = 0; i < 60; ++i) {
    slow.emplace_back(server.port());
    if (i % 3 == 0) slow.back().send("GET /slow HTTP/1.1\r\nHost: localhost\r\n");
    if (i % 3 == 1) slow.back().send("POST /slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n");
  }
  const auto start = std::chrono::steady_clock::now();
  int served = 0;
  while (std::chrono::steady_clock::now() - start < milliseconds(1'500)) {
    for (std::size_t i = 0; i < slow.size(); ++i) slow[i].send(i % 3 == 0 ? "X: y\r\n" : i % 3 == 1 ? "x" : "");
    const std::string answer = exchange(server.port(), "GET /fast HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    if (answer.find("/fast") != std::string::npos) ++served;
    std::this_thread::sleep_for(milliseconds(50));
  }
  EXPECT_GE(served, 10);
  for (const RawSocket& socket : slow) EXPECT_TRUE(socket.is_closed());
  EXPECT_EQ(server.num_connections(), 0);
}

TEST(HttpLimits, AClientThatDoesNotReadItsAnswerIsDropped) {
  HttpLimits limits;
  limits.timeout = milliseconds(500);
  Echo server(limits);
  const RawSocket idle(server.port());
  ASSERT_TRUE(idle.send("GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n"));
  const auto start = std::chrono::steady_clock::now();
  while (server.num_connections() == 0 && std::chrono::steady_clock::now() - start < milliseconds(5'000)) std::this_thread::yield();
  while (server.num_connections() > 0 && std::chrono::steady_clock::now() - start < milliseconds(10'000)) std::this_thread::yield();
  EXPECT_EQ(server.num_connections(), 0);
  EXPECT_GE(std::chrono::steady_clock::now() - start, milliseconds(400)) << "it had its time";
}

TEST(HttpLimits, StreamsAreNotCountedAmongOrdinaryConnections) {
  HttpLimits limits;
  limits.connections = 4;
  Echo server(limits);
  std::vector<RawSocket> readers;
  for (int i = 0; i < 12; ++i) {
    readers.emplace_back(server.port());
    ASSERT_TRUE(readers.back().send("GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    EXPECT_THAT(readers.back().receive_all(milliseconds(200)), StartsWith("HTTP/1.1 200 OK")) << i;
  }
  EXPECT_THAT(exchange(server.port(), "GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n"), HasSubstr("GET /a"));
}

TEST(HttpLimits, SurvivesAThousandBrokenRequests) {
  HttpLimits limits;
  limits.timeout = milliseconds(300);
  Echo server(limits);
  const std::string whole = "POST /a?b=c HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                            "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
  std::mt19937 random(7);
  for (int i = 0; i < 1000; ++i) {
    std::string text = whole;
    for (int changes = 1 + static_cast<int>(random() % 4); changes > 0; --changes) {
      const std::size_t at = random() % text.size();
      if (random() % 3 == 0) text.erase(at, 1 + random() % 8);
      else text[at] = static_cast<char>(random() % 256);
      if (text.empty()) text = "x";
    }
    const RawSocket socket(server.port());
    socket.send(text);
    socket.finish();
    if (i % 10 == 0) static_cast<void>(socket.receive_all(milliseconds(400)));
  }
  EXPECT_THAT(exchange(server.port(), "GET /after HTTP/1.1\r\nHost: localhost\r\n\r\n"), HasSubstr("GET /after"));
}

class Tls : public testing::Test {
 protected:
  void SetUp() override {
    write_private_ca({.folder = folder_ / "tls", .names = {"localhost", "127.0.0.1"}});
    write_private_ca({.folder = folder_ / "other", .names = {"localhost", "127.0.0.1"}});
  }
  [[nodiscard]] TlsFiles files() const { return {folder_ / "tls/server.crt", folder_ / "tls/server.key"}; }
  Client client(Echo& server, const std::string& host, const std::string& authority) const {
    return Client(parse_server_url("https://" + host + ":" + std::to_string(server.port())), {.ca_file = folder_ / authority},
                  std::chrono::seconds(5));
  }
  TempFolder folder_;
};

TEST_F(Tls, ServesRequestsAndStreams) {
  Echo server({}, files());
  for (const char* host : {"localhost", "127.0.0.1"}) {
    EXPECT_EQ(client(server, host, "tls/ca.crt").get("/a").at("seen"), "GET /a");
  }
  std::string type;
  client(server, "localhost", "tls/ca.crt").stream("/events", "", [&](const ServerEvent& event) {
    type = event.type;
    return false;
  });
  EXPECT_EQ(type, "state");
}

TEST_F(Tls, AClientTrustsItsAuthorityAndTheRightNameAlone) {
  Echo server({}, files());
  const auto why = [&](const Client& caller) -> std::string {
    try {
      caller.get("/a");
      return "";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kUnavailable);
      return error.what();
    }
  };
  EXPECT_THAT(why(client(server, "localhost", "other/ca.crt")), HasSubstr("--ca FILE"));
  write_private_ca({.folder = folder_ / "named", .names = {"localhost"}});
  Echo named({}, TlsFiles{folder_ / "named/server.crt", folder_ / "named/server.key"});
  EXPECT_EQ(why(client(named, "localhost", "named/ca.crt")), "");
  EXPECT_THAT(why(client(named, "127.0.0.1", "named/ca.crt")), HasSubstr("certificate verify failed"));
  EXPECT_THROW(client(server, "localhost", "tls/server.key"), Error);
}

TEST_F(Tls, PlainHttpAndGarbageGetNothing) {
  HttpLimits limits;
  limits.timeout = milliseconds(500);
  Echo server(limits, files());
  EXPECT_THAT(exchange(server.port(), "GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n"), testing::Not(HasSubstr("seen")));
  const RawSocket silent(server.port());
  const std::string nothing = silent.receive_all(milliseconds(2'000));
  EXPECT_TRUE(silent.is_closed()) << "a handshake has its time";
  EXPECT_EQ(client(server, "localhost", "tls/ca.crt").get("/a").at("seen"), "GET /a");
}

TEST_F(Tls, ATokenIsNotSentInTheClear) {
  EXPECT_THROW(Client(parse_server_url("http://head.cluster:8080"), {.token = "t"}), Error);
  EXPECT_NO_THROW(Client(parse_server_url("http://127.0.0.1:8080"), {.token = "t"}));
  EXPECT_NO_THROW(Client(parse_server_url("https://head.cluster"), {.token = "t"}));
}

TEST_F(Tls, CertificatesThatAreNoneAreNamed) {
  boost::asio::io_context io;
  try {
    HttpServer server(io, {"127.0.0.1", 0}, {}, nullptr, TlsFiles{folder_ / "tls/server.key", folder_ / "tls/server.key"});
    ADD_FAILURE() << "took a key for a certificate";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("server.key"));
  }
}

}  // namespace
}  // namespace onestep
