// An HTTP/1.1 server, with or without TLS: one coroutine a connection, limits on everything.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
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

// "127.0.0.1:8080", "localhost:0", "[::1]:8080", "0.0.0.0:8443". Which of them may be listened on is for access.h.
// Errors: kUsage.
ListenAddress parse_listen_address(const std::string& text);
// "127.0.0.1:8080", "[::1]:8080".
std::string to_string(const ListenAddress& address);

struct TlsFiles {
  std::string certificate;  // PEM, with the chain behind it
  std::string key;
};

struct HttpLimits {
  std::uint32_t header_bytes = 8 * 1024;
  std::uint64_t body_bytes = 1024 * 1024;
  std::chrono::milliseconds timeout{
      30'000};  // for a whole request, a whole response, and between requests
  int connections = 256;  // besides those with an event stream, which are the event hub's to limit
  std::chrono::milliseconds heartbeat{15'000};  // of a stream that is quiet
};

// All methods, and the handler, on the thread that runs the io_context, which outlives the server.
class HttpServer {
 public:
  // Must not throw; what it throws all the same is answered 500 and logged.
  using Handler = std::function<HttpResponse(const HttpRequest&)>;

  // Binds and listens; nothing is accepted before start(). Errors: kUnavailable naming host:port; kCorrupt for
  // certificates that OpenSSL can't use.
  HttpServer(boost::asio::io_context& io, const ListenAddress& address, HttpLimits limits,
             Handler handler, const std::optional<TlsFiles>& tls = std::nullopt);
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
