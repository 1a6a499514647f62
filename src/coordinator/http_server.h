// An HTTP/1.1 server on a loopback address: one coroutine a connection, limits on everything.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "coordinator/http_message.h"

namespace boost::asio {
class io_context;
}

namespace onestep {

struct ListenAddress {
  std::string host;        // numeric: "127.0.0.1", "::1"
  std::uint16_t port = 0;  // 0: any free one
};

// "127.0.0.1:8080", "localhost:0", "[::1]:8080". Only loopback, since whoever can submit a job can
// run programs here and there is no authentication. Errors: kUsage.
ListenAddress parse_listen_address(const std::string& text);
// "127.0.0.1:8080", "[::1]:8080".
std::string to_string(const ListenAddress& address);
// True for 127.0.0.0/8, ::1 and "localhost", the host part of a Host header or an origin.
bool is_loopback_host(const std::string& host);

struct HttpLimits {
  std::uint32_t header_bytes = 8 * 1024;
  std::uint64_t body_bytes = 1024 * 1024;
  std::chrono::milliseconds timeout{
      30'000};  // for a whole request, a whole response, and between requests
  int connections = 2560;  // 2,048 readers of events, and requests
  std::chrono::milliseconds heartbeat{15'000};  // of a stream that is quiet
};

// All methods, and the handler, on the thread that runs the io_context, which outlives the server.
class HttpServer {
 public:
  // Must not throw; what it throws all the same is answered 500 and logged.
  using Handler = std::function<HttpResponse(const HttpRequest&)>;

  // Binds and listens; nothing is accepted before start(). Errors: kUnavailable naming host:port.
  HttpServer(boost::asio::io_context& io, const ListenAddress& address, HttpLimits limits,
             Handler handler);
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  // With the port that was really taken.
  [[nodiscard]] ListenAddress address() const;
  [[nodiscard]] int num_connections() const;
  void start();
  // Stops accepting and closes every connection; a response being written is cut off.
  void stop();

 private:
  class Implementation;
  std::shared_ptr<Implementation> implementation_;
};

}  // namespace onestep
