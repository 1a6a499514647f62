// Writes a response whose body goes on, chunk by chunk, with a comment when it is quiet.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>

#include <poll.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <utility>

#include "coordinator/body_stream.h"

namespace onestep {

// Has the other side closed? Its bytes stay unread.
inline bool is_closed_by_peer(int socket) {
  pollfd state{socket, POLLRDHUP, 0};
  return ::poll(&state, 1, 0) > 0;
}

// `response` has its fields set and no length. Ends when the stream does, when the other side has
// closed, or when it takes nothing for `timeout`. After `heartbeat` without anything to send: a comment.
// Stream: `lowest` itself, or TLS around it.
template <class Stream>
boost::asio::awaitable<void> write_body_stream(
    Stream& stream, boost::beast::tcp_stream& lowest, boost::beast::http::response<boost::beast::http::empty_body> response,
    std::shared_ptr<BodyStream> body, std::chrono::milliseconds timeout,
    std::chrono::milliseconds heartbeat) {
  namespace asio = boost::asio;
  namespace http = boost::beast::http;
  // So soon a closed connection is seen.
  const std::chrono::milliseconds look = std::min(heartbeat, std::chrono::milliseconds(1'000));
  boost::system::error_code error;
  response.keep_alive(false);
  response.chunked(response.version() == 11);
  http::response_serializer<http::empty_body> serializer(response);
  lowest.expires_after(timeout);
  co_await http::async_write_header(stream, serializer,
                                    asio::redirect_error(asio::use_awaitable, error));

  asio::steady_timer timer(stream.get_executor());
  body->on_ready([&timer] { timer.cancel(); });
  std::chrono::milliseconds quiet{0};
  while (!error) {
    std::optional<std::string> piece = body->next();
    if (!piece) break;
    if (piece->empty() && quiet < heartbeat) {
      timer.expires_after(look);
      boost::system::error_code woken;
      lowest.expires_never();
      co_await timer.async_wait(asio::redirect_error(asio::use_awaitable, woken));
      if (!lowest.socket().is_open() || is_closed_by_peer(lowest.socket().native_handle())) break;
      if (!woken) quiet += look;
      continue;
    }
    if (piece->empty()) piece = ": still here\n\n";
    quiet = std::chrono::milliseconds{0};
    lowest.expires_after(timeout);
    if (response.chunked()) {
      co_await asio::async_write(stream, http::make_chunk(asio::buffer(*piece)),
                                 asio::redirect_error(asio::use_awaitable, error));
    } else {
      co_await asio::async_write(stream, asio::buffer(*piece),
                                 asio::redirect_error(asio::use_awaitable, error));
    }
  }
  body->on_ready(nullptr);
  if (!error && response.chunked()) {
    lowest.expires_after(timeout);
    co_await asio::async_write(stream, http::make_chunk_last(),
                               asio::redirect_error(asio::use_awaitable, error));
  }
}

}  // namespace onestep
