#include "coordinator/http_server.h"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <optional>
#include <set>

#include "common/log.h"
#include "coordinator/close_on_exec.h"
#include "coordinator/problem.h"
#include "coordinator/stream_response.h"

namespace onestep {
namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using asio::ip::tcp;
using boost::system::error_code;

namespace {

[[noreturn]] void refuse_address(const std::string& text, const std::string& why) {
  throw Error(ErrorCode::kUsage, "listen address: found \"" + text +
                                     "\"; expected HOST:PORT with a numeric HOST (127.0.0.1, [::1]) or localhost, and " +
                                     "PORT 0-65535; " + why);
}

std::string lower_case(std::string_view text) {
  std::string lower(text);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  return lower;
}

// What the connection is told when the bytes are no request that the API could see.
std::optional<HttpResponse> refusal(const error_code& error, const HttpLimits& limits) {
  if (error == http::error::header_limit) {
    return problem(431, "usage",
                   "request header: larger than " + std::to_string(limits.header_bytes) + " bytes",
                   "");
  }
  if (error == http::error::body_limit) {
    return problem(413, "usage",
                   "request body: larger than " + std::to_string(limits.body_bytes) + " bytes", "");
  }
  if (error.category() == make_error_code(http::error::bad_version).category() &&
      error != http::error::end_of_stream && error != http::error::partial_message) {
    return problem(400, "usage", "not an HTTP/1.1 request: " + error.message(), "");
  }
  return std::nullopt;
}

template <class Body>
void fill_header(http::response<Body>& response, const HttpResponse& from, bool keep_alive) {
  response.result(static_cast<unsigned>(from.status));
  response.reason(std::string(reason_phrase(from.status)));
  response.set(http::field::server, "onestep");
  response.set(http::field::content_type, from.content_type);
  response.set(http::field::cache_control, "no-store");
  response.set("X-Content-Type-Options", "nosniff");
  for (const auto& [name, value] : from.headers) response.set(name, value);
  response.content_length(from.file ? static_cast<std::uint64_t>(from.file->length) : from.body.size());
  response.keep_alive(keep_alive);
}

constexpr std::int64_t kFilePiece = 256 * 1024;  // read and sent at a time

// A socket that was accepted, with TLS around it where that is spoken.
struct Connection {
  Connection(tcp::socket socket, asio::ssl::context* context) : lowest(std::move(socket)) {
    if (context != nullptr) tls.emplace(lowest, *context);
  }
  beast::tcp_stream lowest;
  std::optional<asio::ssl::stream<beast::tcp_stream&>> tls;
  bool streaming = false;  // events: counted by the event hub
};
using ConnectionPtr = std::shared_ptr<Connection>;

// A field that decides something must not stand twice: two programs could each believe another one.
std::string ambiguity(const http::request<http::string_body>& request) {
  for (const char* name : {"Host", "Origin", "Authorization", "Content-Type", "Content-Length", "Transfer-Encoding",
                           "Idempotency-Key", "Last-Event-ID", "Range", "If-Range"}) {
    if (request.count(name) > 1) return std::string(name) + ": expected at most once, found it several times";
  }
  const auto coding = request.find(http::field::transfer_encoding);
  if (coding != request.end() && lower_case(coding->value()) != "chunked") {
    return "Transfer-Encoding: expected chunked, found \"" + std::string(coding->value()) + "\"";
  }
  if (request.version() == 11 && request.count(http::field::host) == 0) return "Host: expected one, found none";
  if (!request.target().starts_with('/')) {
    return "target: expected a path, found \"" + std::string(request.target()) + "\"";
  }
  return "";
}

// Length and pieces of a file; a file that became shorter ends the connection.
template <class S>
asio::awaitable<error_code> write_file_part(S& stream, beast::tcp_stream& lowest, HttpResponse from, unsigned version,
                                            bool keep_alive, std::chrono::milliseconds timeout) {
  error_code error;
  const FilePart& part = *from.file;
  http::response<http::empty_body> response;
  response.version(version);
  fill_header(response, from, keep_alive);
  http::response_serializer<http::empty_body> serializer(response);
  co_await http::async_write_header(stream, serializer, asio::redirect_error(asio::use_awaitable, error));
  for (std::int64_t sent = 0; !error && sent < part.length;) {
    const std::string piece = part.file.read_at(part.offset + sent, std::min(kFilePiece, part.length - sent));
    if (piece.empty()) co_return make_error_code(asio::error::eof);
    lowest.expires_after(timeout);
    co_await asio::async_write(stream, asio::buffer(piece), asio::redirect_error(asio::use_awaitable, error));
    sent += static_cast<std::int64_t>(piece.size());
  }
  co_return error;
}

template <class S>
asio::awaitable<error_code> write_response(S& stream, HttpResponse from, bool head_only,
                                           unsigned version, bool keep_alive) {
  error_code error;
  if (head_only) {
    http::response<http::empty_body> response;
    response.version(version);
    fill_header(response, from, keep_alive);
    http::response_serializer<http::empty_body> serializer(response);
    co_await http::async_write_header(stream, serializer,
                                      asio::redirect_error(asio::use_awaitable, error));
  } else {
    http::response<http::string_body> response;
    response.version(version);
    fill_header(response, from, keep_alive);
    response.body() = std::move(from.body);
    co_await http::async_write(stream, response, asio::redirect_error(asio::use_awaitable, error));
  }
  co_return error;
}

// Reads on for a moment after the last response: closing with unread bytes would reset the
// connection before the client has seen what it was told.
asio::awaitable<void> linger(beast::tcp_stream& stream) {
  error_code error;
  stream.socket().shutdown(tcp::socket::shutdown_send, error);
  stream.expires_after(std::chrono::seconds(2));
  std::string scrap(64 * 1024, '\0');
  for (std::size_t total = 0; !error && total < (16U << 20);) {
    total += co_await stream.async_read_some(asio::buffer(scrap),
                                              asio::redirect_error(asio::use_awaitable, error));
  }
}

}  // namespace

class HttpServer::Implementation : public std::enable_shared_from_this<Implementation> {
 public:
  Implementation(asio::io_context& io, const ListenAddress& address, HttpLimits limits,
                 Handler handler, const std::optional<TlsFiles>& tls)
      : io_(io), limits_(limits), handler_(std::move(handler)), acceptor_(io), retry_(io) {
    if (tls) use_certificate(*tls);
    const tcp::endpoint endpoint(asio::ip::make_address(address.host), address.port);
    try {
      acceptor_.open(endpoint.protocol());
      close_on_exec(acceptor_.native_handle());
      acceptor_.set_option(tcp::acceptor::reuse_address(true));
      acceptor_.bind(endpoint);
      acceptor_.listen();
    } catch (const boost::system::system_error& error) {
      throw Error(ErrorCode::kUnavailable, "HTTP: can't listen on " + to_string(address) + ": " +
                                               error.code().message() +
                                               "; choose another port, or 0 for any");
    }
  }

  ListenAddress address() const {
    const tcp::endpoint endpoint = acceptor_.local_endpoint();
    return {endpoint.address().to_string(), endpoint.port()};
  }

  int num_connections() const { return static_cast<int>(connections_.size()); }

  void start() { asio::co_spawn(io_, accept_all(shared_from_this()), asio::detached); }

  void stop() {
    error_code ignored;
    acceptor_.close(ignored);
    retry_.cancel();
    for (const ConnectionPtr& connection : connections_) connection->lowest.close();
  }

 private:
  void use_certificate(const TlsFiles& files) {
    tls_.emplace(asio::ssl::context::tls_server);
    tls_->set_options(asio::ssl::context::default_workarounds | asio::ssl::context::no_compression);
    SSL_CTX_set_min_proto_version(tls_->native_handle(), TLS1_2_VERSION);
    try {
      tls_->use_certificate_chain_file(files.certificate);
      tls_->use_private_key_file(files.key, asio::ssl::context::pem);
    } catch (const boost::system::system_error& error) {
      throw Error(ErrorCode::kCorrupt, files.certificate + ", " + files.key + ": expected a certificate and its key in PEM; " +
                                           error.code().message());
    }
  }

  // `self` keeps the object alive for as long as the coroutine runs.
  asio::awaitable<void> accept_all(std::shared_ptr<Implementation> self) {
    while (acceptor_.is_open()) {
      error_code error;
      tcp::socket socket(io_);
      co_await acceptor_.async_accept(socket, asio::redirect_error(asio::use_awaitable, error));
      if (!acceptor_.is_open()) co_return;
      if (error) {  // for instance no file descriptor left: others are about to close
        log_warning("HTTP: accept: " + error.message());
        retry_.expires_after(std::chrono::milliseconds(200));
        co_await retry_.async_wait(asio::redirect_error(asio::use_awaitable, error));
        continue;
      }
      close_on_exec(socket.native_handle());
      if (num_connections() - num_streaming_ >= limits_.connections) {
        turn_away(std::move(socket));
        continue;
      }
      auto connection = std::make_shared<Connection>(std::move(socket), tls_ ? &*tls_ : nullptr);
      connections_.insert(connection);
      asio::co_spawn(io_, serve_connection(self, connection), asio::detached);
    }
  }

  // With TLS there is no time for a handshake: the connection is closed without a word.
  void turn_away(tcp::socket socket) const {
    if (tls_) return;
    const HttpResponse response =
        problem(503, "unavailable",
                "too many connections: limit " + std::to_string(limits_.connections), "");
    const std::string text =
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: " + response.content_type +
        "\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: " +
        std::to_string(response.body.size()) + "\r\n\r\n" + response.body;
    error_code ignored;  // best effort: the connection ends either way
    socket.non_blocking(true, ignored);
    socket.write_some(asio::buffer(text), ignored);
    socket.shutdown(tcp::socket::shutdown_both, ignored);
  }

  asio::awaitable<void> serve_connection(std::shared_ptr<Implementation> self, ConnectionPtr connection) {
    try {
      beast::flat_buffer buffer;
      if (!connection->tls) {
        while (co_await serve_request(connection->lowest, *connection, buffer)) {
        }
      } else if (co_await shake_hands(*connection)) {
        while (co_await serve_request(*connection->tls, *connection, buffer)) {
        }
        error_code ignored;
        connection->lowest.expires_after(std::chrono::seconds(2));
        co_await connection->tls->async_shutdown(asio::redirect_error(asio::use_awaitable, ignored));
      }
    } catch (const std::exception& error) {
      log_error(std::string("HTTP: connection dropped: ") + error.what());
    }
    connection->lowest.close();
    if (connection->streaming) --num_streaming_;
    self->connections_.erase(connection);
  }

  asio::awaitable<bool> shake_hands(Connection& connection) {
    error_code error;
    connection.lowest.expires_after(limits_.timeout);
    co_await connection.tls->async_handshake(asio::ssl::stream_base::server,
                                             asio::redirect_error(asio::use_awaitable, error));
    co_return !error;
  }

  // False when the connection is over.
  template <class S>
  asio::awaitable<bool> serve_request(S& stream, Connection& connection, beast::flat_buffer& buffer) {
    http::request_parser<http::string_body> parser;
    parser.header_limit(limits_.header_bytes);
    parser.body_limit(limits_.body_bytes);
    error_code error;
    connection.lowest.expires_after(limits_.timeout);
    co_await http::async_read_header(stream, buffer, parser,
                                     asio::redirect_error(asio::use_awaitable, error));
    if (!error && lower_case(parser.get()[http::field::expect]) == "100-continue") {
      static constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
      co_await asio::async_write(stream, asio::buffer(kContinue),
                                 asio::redirect_error(asio::use_awaitable, error));
    }
    if (!error) {
      co_await http::async_read(stream, buffer, parser,
                                asio::redirect_error(asio::use_awaitable, error));
    }
    if (error) {
      if (std::optional<HttpResponse> response = refusal(error, limits_)) {
        connection.lowest.expires_after(limits_.timeout);
        const error_code failed =
            co_await write_response(stream, std::move(*response), false, 11, false);
        if (!failed && !connection.tls) co_await linger(connection.lowest);
      }
      co_return false;
    }
    const http::request<http::string_body>& parsed = parser.get();
    HttpRequest request{.method = std::string(parsed.method_string()),
                        .target = std::string(parsed.target()),
                        .headers = {},
                        .body = parsed.body()};
    for (const auto& field : parsed)
      request.headers[lower_case(field.name_string())] = std::string(field.value());

    const std::string unclear = ambiguity(parsed);
    const bool keep_alive = parsed.keep_alive() && unclear.empty();
    HttpResponse response = unclear.empty() ? answer(request) : problem(400, "usage", unclear, request.target);
    if (response.stream && request.method != "HEAD") {
      http::response<http::empty_body> head;
      head.version(parsed.version());
      fill_header(head, response, false);
      head.erase(http::field::content_length);
      connection.streaming = true;
      ++num_streaming_;
      co_await write_body_stream(stream, connection.lowest, std::move(head), std::move(response.stream),
                                 limits_.timeout, limits_.heartbeat);
      co_return false;
    }
    connection.lowest.expires_after(limits_.timeout);
    if (response.file && request.method != "HEAD") {
      error = co_await write_file_part(stream, connection.lowest, std::move(response), parsed.version(), keep_alive,
                                       limits_.timeout);
    } else {
      error = co_await write_response(stream, std::move(response), request.method == "HEAD",
                                      parsed.version(), keep_alive);
    }
    if (error) co_return false;
    if (!keep_alive && !connection.tls) co_await linger(connection.lowest);
    co_return keep_alive;
  }

  HttpResponse answer(const HttpRequest& request) {
    try {
      return handler_(request);
    } catch (const std::exception& error) {
      log_error("HTTP: " + request.method + " " + request.target + ": " + error.what());
      return problem(500, "internal", error.what(), request.target);
    }
  }

  asio::io_context& io_;
  const HttpLimits limits_;
  const Handler handler_;
  tcp::acceptor acceptor_;
  asio::steady_timer retry_;
  std::optional<asio::ssl::context> tls_;
  std::set<ConnectionPtr> connections_;
  int num_streaming_ = 0;
};

HttpServer::HttpServer(asio::io_context& io, const ListenAddress& address, HttpLimits limits,
                       Handler handler, const std::optional<TlsFiles>& tls)
    : implementation_(std::make_shared<Implementation>(io, address, limits, std::move(handler), tls)) {}
HttpServer::~HttpServer() { stop(); }
ListenAddress HttpServer::address() const { return implementation_->address(); }
int HttpServer::num_connections() const { return implementation_->num_connections(); }
void HttpServer::start() { implementation_->start(); }
void HttpServer::stop() { implementation_->stop(); }

ListenAddress parse_listen_address(const std::string& text) {
  const std::size_t colon = text.rfind(':');
  if (colon == std::string::npos) refuse_address(text, "there is no \":PORT\"");
  std::string host = text.substr(0, colon);
  if (host.empty()) refuse_address(text, "there is no HOST");
  const std::string digits = text.substr(colon + 1);
  ListenAddress address;
  const auto [end, failure] =
      std::from_chars(digits.data(), digits.data() + digits.size(), address.port);
  if (failure != std::errc() || end != digits.data() + digits.size()) {
    refuse_address(text, "\"" + digits + "\" is no port");
  }
  if (host.find(':') != std::string::npos && host.front() != '[') {
    refuse_address(text, "an IPv6 address stands in brackets");
  }
  if (lower_case(host) == "localhost") host = "127.0.0.1";
  if (host.front() == '[') host = host.substr(1, host.size() - 2);
  error_code wrong;
  address.host = asio::ip::make_address(host, wrong).to_string();
  if (wrong) refuse_address(text, "\"" + host + "\" is no numeric address");
  return address;
}

std::string to_string(const ListenAddress& address) {
  const bool ipv6 = address.host.find(':') != std::string::npos;
  return (ipv6 ? "[" + address.host + "]" : address.host) + ":" + std::to_string(address.port);
}

}  // namespace onestep
