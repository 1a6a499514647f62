#include "coordinator/http_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_future.hpp>
#include <boost/asio/write.hpp>

#include <functional>
#include <future>
#include <thread>
#include <utility>

#include "common/error.h"
#include "coordinator/body_stream.h"
#include "coordinator/problem.h"
#include "coordinator/socket_count.h"

namespace onestep {
namespace {

using boost::asio::ip::tcp;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

// Three pieces, the last one a moment after it was asked for; then quiet, or the end.
class ThreePieces : public BodyStream {
 public:
  ThreePieces(boost::asio::io_context& io, bool ends) : timer_(io), ends_(ends) {}
  std::optional<std::string> next() override {
    if (pieces_.empty()) return ends_ ? std::nullopt : std::optional<std::string>("");
    const std::string piece = pieces_.front();
    if (piece == "third" && !std::exchange(waited_, true)) {
      timer_.expires_after(std::chrono::milliseconds(20));
      timer_.async_wait([this](const boost::system::error_code& error) {
        if (!error && wake_) wake_();
      });
      return "";
    }
    pieces_.erase(pieces_.begin());
    return piece;
  }
  void on_ready(std::function<void()> wake) override { wake_ = std::move(wake); }

 private:
  std::vector<std::string> pieces_ = {"first", "second", "third"};
  boost::asio::steady_timer timer_;
  bool ends_;
  bool waited_ = false;
  std::function<void()> wake_;
};

// More than any socket holds, for ever.
class Flood : public BodyStream {
 public:
  std::optional<std::string> next() override { return std::string(1 << 16, 'x'); }
  void on_ready(std::function<void()>) override {}
};

// A server on a thread of its own whose handler echoes what it was asked.
class Server {
 public:
  explicit Server(HttpLimits limits = {})
      : server_(io_, {"127.0.0.1", 0}, limits, [this](const HttpRequest& request) {
          if (request.target == "/throw") throw std::runtime_error("boom");
          if (request.target == "/flood") return stream_response(std::make_shared<Flood>());
          if (request.target == "/three" || request.target == "/endless") {
            return stream_response(std::make_shared<ThreePieces>(io_, request.target == "/three"));
          }
          return HttpResponse{
              .status = 200,
              .content_type = "text/plain",
              .headers = {{"X-Seen", request.headers.count("x-mine") ? "yes" : "no"}},
              .body = request.method + " " + request.target + " " + request.body};
        }) {
    server_.start();
    thread_ = std::thread([this] { io_.run(); });
  }
  ~Server() {
    boost::asio::post(io_, [this] { server_.stop(); });
    thread_.join();
  }
  static HttpResponse stream_response(std::shared_ptr<BodyStream> stream) {
    HttpResponse response;
    response.content_type = "text/event-stream";
    response.stream = std::move(stream);
    return response;
  }
  std::uint16_t port() const { return server_.address().port; }
  int num_connections() {
    return boost::asio::post(io_,
                             boost::asio::use_future([this] { return server_.num_connections(); }))
        .get();
  }

 private:
  boost::asio::io_context io_;
  HttpServer server_;
  std::thread thread_;
};

class Client {
 public:
  explicit Client(std::uint16_t port) : socket_(io_) {
    socket_.connect({boost::asio::ip::make_address("127.0.0.1"), port});
  }
  // What the server has already said stays readable even if it no longer takes what we send.
  void send(const std::string& text) {
    boost::system::error_code ignored;
    boost::asio::write(socket_, boost::asio::buffer(text), ignored);
  }
  // Head and body of one response with Content-Length; `body_follows` is false after HEAD.
  std::string receive(bool body_follows = true) {
    auto buffer = boost::asio::dynamic_buffer(unread_);
    const std::size_t head = boost::asio::read_until(socket_, buffer, "\r\n\r\n");
    const std::size_t at = unread_.find("Content-Length: ");
    const std::size_t body = !body_follows || at >= head ? 0 : std::stoul(unread_.substr(at + 16));
    if (unread_.size() < head + body) {
      boost::asio::read(socket_, buffer,
                        boost::asio::transfer_exactly(head + body - unread_.size()));
    }
    const std::string response = unread_.substr(0, head + body);
    unread_.erase(0, head + body);
    return response;
  }
  // Everything until `text` has come.
  std::string receive_until(const std::string& text) {
    auto buffer = boost::asio::dynamic_buffer(unread_);
    const std::size_t size = boost::asio::read_until(socket_, buffer, text);
    const std::string received = unread_.substr(0, size);
    unread_.erase(0, size);
    return received;
  }
  void close() { socket_.close(); }
  // True when nothing but the end follows.
  bool at_end() {
    char byte = 0;
    boost::system::error_code error;
    boost::asio::read(socket_, boost::asio::buffer(&byte, 1), error);
    return static_cast<bool>(error);
  }

 private:
  boost::asio::io_context io_;
  tcp::socket socket_;
  std::string unread_;
};

TEST(HttpServer, KeepsTheConnectionForTheNextRequest) {
  Server server;
  Client client(server.port());
  client.send("GET /a HTTP/1.1\r\nHost: localhost\r\nX-Mine: 1\r\n\r\n");
  const std::string first = client.receive();
  EXPECT_THAT(first, StartsWith("HTTP/1.1 200 OK\r\n"));
  EXPECT_THAT(first, HasSubstr("X-Seen: yes"));
  EXPECT_THAT(first, HasSubstr("GET /a "));
  client.send("POST /b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nbody");
  EXPECT_THAT(client.receive(), HasSubstr("POST /b body"));
}

TEST(HttpServer, ClosesWhenAskedTo) {
  Server server;
  Client client(server.port());
  client.send("GET /a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
  EXPECT_THAT(client.receive(), HasSubstr("Connection: close"));
  EXPECT_TRUE(client.at_end());
}

TEST(HttpServer, HeadHasTheLengthAndNoBody) {
  Server server;
  Client client(server.port());
  client.send(
      "HEAD /a HTTP/1.1\r\nHost: localhost\r\n\r\nGET /b HTTP/1.1\r\nHost: localhost\r\n\r\n");
  const std::string head = client.receive(false);
  EXPECT_THAT(head, HasSubstr("Content-Length: 8"));
  EXPECT_THAT(head, Not(HasSubstr("HEAD /a")));
  const std::string next = client.receive();  // right behind: no body in between
  EXPECT_THAT(next, StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(next, HasSubstr("GET /b"));
}

TEST(HttpServer, AnswersExpectContinue) {
  Server server;
  Client client(server.port());
  client.send(
      "POST /b HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
  EXPECT_THAT(client.receive(), StartsWith("HTTP/1.1 100 Continue"));
  client.send("body");
  EXPECT_THAT(client.receive(), HasSubstr("POST /b body"));
}

TEST(HttpServer, RefusesALargeBody) {
  Server server({.body_bytes = 1000});
  Client client(server.port());
  client.send("POST /b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1001\r\n\r\n" +
              std::string(1001, 'x'));
  const std::string response = client.receive();
  EXPECT_THAT(response, StartsWith("HTTP/1.1 413 "));
  EXPECT_THAT(response, HasSubstr("application/problem+json"));
  EXPECT_THAT(response, HasSubstr("larger than 1000 bytes"));
  EXPECT_TRUE(client.at_end());
}

TEST(HttpServer, RefusesALargeChunkedBody) {
  Server server({.body_bytes = 1000});
  Client client(server.port());
  client.send("POST /b HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n" +
              std::string(1001, 'x') + "\r\n0\r\n\r\n");
  EXPECT_THAT(client.receive(), StartsWith("HTTP/1.1 413 "));
}

TEST(HttpServer, RefusesALargeHeader) {
  Server server;
  Client client(server.port());
  client.send("GET /a HTTP/1.1\r\nHost: localhost\r\nX: " + std::string(9000, 'x') + "\r\n\r\n");
  EXPECT_THAT(client.receive(), StartsWith("HTTP/1.1 431 "));
}

TEST(HttpServer, RefusesWhatIsNoHttp) {
  Server server;
  Client client(server.port());
  client.send("hello there\r\n\r\n");
  EXPECT_THAT(client.receive(), StartsWith("HTTP/1.1 400 "));
  EXPECT_TRUE(client.at_end());
}

TEST(HttpServer, AnswersWhenTheHandlerThrows) {
  Server server;
  Client client(server.port());
  client.send("GET /throw HTTP/1.1\r\nHost: localhost\r\n\r\n");
  EXPECT_THAT(client.receive(), StartsWith("HTTP/1.1 500 "));
  client.send("GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n");
  EXPECT_THAT(client.receive(), StartsWith("HTTP/1.1 200 "));
}

TEST(HttpServer, DropsAClientThatSendsNoWholeRequest) {
  Server server({.timeout = std::chrono::milliseconds(50)});
  Client client(server.port());
  client.send("GET /a HTT");
  EXPECT_TRUE(client.at_end());
}

TEST(HttpServer, TurnsAwayTooManyConnections) {
  Server server({.connections = 2});
  Client first(server.port());
  first.send("GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n");
  first.receive();
  Client second(server.port());
  second.send("GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n");
  second.receive();
  EXPECT_EQ(server.num_connections(), 2);
  Client third(server.port());
  EXPECT_THAT(third.receive(), StartsWith("HTTP/1.1 503 "));
  EXPECT_TRUE(third.at_end());
}

TEST(HttpServer, SendsAStreamPieceByPiece) {
  Server server;
  Client client(server.port());
  client.send("GET /three HTTP/1.1\r\nHost: localhost\r\n\r\n");
  const std::string head = client.receive_until("\r\n\r\n");
  EXPECT_THAT(head, StartsWith("HTTP/1.1 200 OK\r\n"));
  EXPECT_THAT(head, HasSubstr("Content-Type: text/event-stream"));
  EXPECT_THAT(head, HasSubstr("Transfer-Encoding: chunked"));
  EXPECT_THAT(head, HasSubstr("Cache-Control: no-store"));
  EXPECT_THAT(head, Not(HasSubstr("Content-Length")));
  EXPECT_EQ(client.receive_until("\r\n0\r\n\r\n"),
            "5\r\nfirst\r\n6\r\nsecond\r\n5\r\nthird\r\n0\r\n\r\n");
  EXPECT_TRUE(client.at_end());
}

TEST(HttpServer, AnOldClientGetsTheStreamWithoutChunks) {
  Server server;
  Client client(server.port());
  client.send("GET /three HTTP/1.0\r\nHost: localhost\r\n\r\n");
  EXPECT_THAT(client.receive_until("\r\n\r\n"), Not(HasSubstr("chunked")));
  EXPECT_EQ(client.receive_until("third"), "firstsecondthird");
  EXPECT_TRUE(client.at_end());
}

TEST(HttpServer, AQuietStreamHasHeartbeats) {
  Server server({.heartbeat = std::chrono::milliseconds(30)});
  Client client(server.port());
  client.send("GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n");
  client.receive_until("third");
  EXPECT_THAT(client.receive_until("\n\n"), HasSubstr(": still here"));
  EXPECT_THAT(client.receive_until("\n\n"), HasSubstr(": still here"));
}

// One that doesn't read is let go; whoever else is connected is served meanwhile.
TEST(HttpServer, DropsAReaderThatTakesNothing) {
  Server server({.timeout = std::chrono::milliseconds(100)});
  Client slow(server.port());
  slow.send("GET /flood HTTP/1.1\r\nHost: localhost\r\n\r\n");
  Client other(server.port());
  other.send("GET /a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
  EXPECT_THAT(other.receive(), HasSubstr("GET /a"));
  other.close();
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (server.num_connections() > 0 && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::yield();
  }
  EXPECT_EQ(server.num_connections(), 0);
}

TEST(HttpServer, AStreamWhoseReaderHasGoneEnds) {
  Server server({.heartbeat = std::chrono::milliseconds(30)});
  Client client(server.port());
  client.send("GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n");
  client.receive_until("third");
  client.close();
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (server.num_connections() > 0 && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::yield();
  }
  EXPECT_EQ(server.num_connections(), 0);
}

// Launched programs must not hold the port.
TEST(HttpServer, ItsSocketsAreClosedOnExec) {
  Server server;
  Client client(server.port());
  client.send("GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n");
  client.receive();
  EXPECT_EQ(inheritable_sockets_of_port(server.port()), 0);
}

TEST(HttpServer, NamesAPortInUse) {
  Server server;
  boost::asio::io_context io;
  try {
    HttpServer second(io, {"127.0.0.1", server.port()}, {}, nullptr);
    FAIL() << "two servers on one port";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnavailable);
    EXPECT_THAT(error.what(), HasSubstr("127.0.0.1:" + std::to_string(server.port())));
    EXPECT_EQ(exit_status(error.code()), 6);
  }
}

TEST(ListenAddress, TakesAddressesInEveryWriting) {
  EXPECT_EQ(to_string(parse_listen_address("127.0.0.1:8080")), "127.0.0.1:8080");
  EXPECT_EQ(to_string(parse_listen_address("127.1.2.3:0")), "127.1.2.3:0");
  EXPECT_EQ(to_string(parse_listen_address("localhost:65535")), "127.0.0.1:65535");
  EXPECT_EQ(to_string(parse_listen_address("[::1]:80")), "[::1]:80");
  EXPECT_EQ(to_string(parse_listen_address("0.0.0.0:8443")), "0.0.0.0:8443");
}

TEST(ListenAddress, RefusesAllElseSayingWhy) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"example.org:80", "no numeric address"},
      {"127.0.0.1", "no \":PORT\""},
      {":8080", "no HOST"},
      {"127.0.0.1:65536", "no port"},
      {"127.0.0.1:", "no port"},
      {"127.0.0.1:80x", "no port"},
      {"::1:80", "brackets"}};
  for (const auto& [text, why] : cases) {
    try {
      parse_listen_address(text);
      ADD_FAILURE() << "accepted: " << text;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kUsage) << text;
      EXPECT_THAT(error.what(), HasSubstr(why));
    }
  }
}

}  // namespace
}  // namespace onestep
