#include "service/http_load.h"

#include <fcntl.h>
#include <unistd.h>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/connect.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <charconv>
#include <chrono>
#include <iostream>
#include <memory>

#include "cli/server_events.h"
#include "common/error.h"
#include "service/latencies.h"

namespace onestep {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using asio::use_awaitable;
using asio::ip::tcp;
using nlohmann::json;

tcp::endpoint endpoint_of(const Server& server) {
  return {asio::ip::make_address(server.host), static_cast<std::uint16_t>(std::stoi(server.port))};
}

http::request<http::string_body> request_of(const Server& server, http::verb method, const std::string& target,
                                            const std::string& body = "") {
  http::request<http::string_body> request(method, target, 11);
  request.set(http::field::host, server.host + ":" + server.port);
  request.keep_alive(true);
  if (!body.empty()) {
    request.set(http::field::content_type, "application/json");
    request.body() = body;
  }
  request.prepare_payload();
  return request;
}

asio::awaitable<void> hello(tcp::socket socket, std::shared_ptr<const std::string> body) {
  beast::tcp_stream stream(std::move(socket));
  beast::flat_buffer buffer;
  boost::system::error_code error;
  for (;;) {
    http::request<http::string_body> request;
    co_await http::async_read(stream, buffer, request, asio::redirect_error(use_awaitable, error));
    if (error) co_return;
    http::response<http::string_body> response(http::status::ok, request.version());
    response.set(http::field::content_type, "application/json");
    response.body() = *body;
    response.keep_alive(request.keep_alive());
    response.prepare_payload();
    co_await http::async_write(stream, response, asio::redirect_error(use_awaitable, error));
    if (error || !response.keep_alive()) co_return;
  }
}

asio::awaitable<void> accept_for_ever(tcp::acceptor& acceptor, std::shared_ptr<const std::string> body) {
  for (;;) {
    tcp::socket socket = co_await acceptor.async_accept(use_awaitable);
    socket.set_option(tcp::no_delay(true));
    asio::co_spawn(acceptor.get_executor(), hello(std::move(socket), body), asio::detached);
  }
}

struct Plan {
  const Server& server;
  const std::vector<std::string>& targets;
  Clock::time_point start;
  double rate;
  std::int64_t total;
  int connections;
};

struct Measured {
  std::vector<double> seconds;
  std::int64_t errors = 0;
};

// Every `connections`-th request of the plan.
asio::awaitable<void> send_requests(const Plan& plan, int first, Measured& measured) {
  beast::tcp_stream stream(co_await asio::this_coro::executor);
  co_await stream.async_connect(endpoint_of(plan.server), use_awaitable);
  stream.socket().set_option(tcp::no_delay(true));
  asio::steady_timer timer(stream.get_executor());
  beast::flat_buffer buffer;
  for (std::int64_t i = first; i < plan.total; i += plan.connections) {
    const auto due = plan.start + std::chrono::duration_cast<Clock::duration>(
                                      std::chrono::duration<double>(static_cast<double>(i) / plan.rate));
    timer.expires_at(due);
    co_await timer.async_wait(use_awaitable);
    const auto request = request_of(plan.server, http::verb::get, plan.targets[static_cast<std::size_t>(i) % plan.targets.size()]);
    co_await http::async_write(stream, request, use_awaitable);
    http::response_parser<http::string_body> response;
    response.body_limit(64 << 20);
    co_await http::async_read(stream, buffer, response, use_awaitable);
    measured.seconds.push_back(seconds_since(due));
    if (response.get().result_int() != 200) ++measured.errors;
  }
}

// All coroutines of one run; the first exception ends it.
void run_all(asio::io_context& io, std::vector<asio::awaitable<void>> tasks) {
  std::exception_ptr failure;
  for (auto& task : tasks) {
    asio::co_spawn(io, std::move(task), [&](std::exception_ptr error) {
      if (!error || failure) return;
      failure = error;
      io.stop();
    });
  }
  io.run();
  if (failure) std::rethrow_exception(failure);
}

asio::awaitable<void> submit_in_turns(const Server& server, const std::string& target, const std::string& body, int count,
                                      const std::string& folder, std::vector<double>& submits, std::vector<double>& syncs) {
  beast::tcp_stream stream(co_await asio::this_coro::executor);
  co_await stream.async_connect(endpoint_of(server), use_awaitable);
  stream.socket().set_option(tcp::no_delay(true));
  beast::flat_buffer buffer;
  for (int i = 0; i < count; ++i) {
    const auto request = request_of(server, http::verb::post, target, body);
    auto start = Clock::now();
    co_await http::async_write(stream, request, use_awaitable);
    http::response<http::string_body> response;
    co_await http::async_read(stream, buffer, response, use_awaitable);
    submits.push_back(seconds_since(start));
    if (response.result_int() != 201) throw Error(ErrorCode::kMismatch, "submit: expected 201, found " + response.body());

    const std::string path = folder + "/sync-" + std::to_string(i);
    start = Clock::now();
    const int file = ::open(path.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
    const bool written = file >= 0 && ::write(file, body.data(), body.size()) == static_cast<ssize_t>(body.size()) && ::fsync(file) == 0;
    if (file >= 0) ::close(file);
    syncs.push_back(seconds_since(start));
    if (!written) throw Error(ErrorCode::kIo, path + ": writing failed");
  }
}

struct Reader {
  std::vector<std::int64_t> ids;
  bool lost = false;
  int turned_away = 0;
};

// False: turned away, there being too many that are not readers yet; it asks again.
asio::awaitable<bool> read_once(const Server& server, const std::string& target, const std::string& after, Clock::time_point end,
                                Reader& reader) {
  beast::tcp_stream stream(co_await asio::this_coro::executor);
  co_await stream.async_connect(endpoint_of(server), use_awaitable);
  auto request = request_of(server, http::verb::get, target);
  if (after != "0") request.set("Last-Event-ID", after);
  boost::system::error_code error;
  co_await http::async_write(stream, request, asio::redirect_error(use_awaitable, error));
  beast::flat_buffer buffer;
  http::response_parser<http::buffer_body> parser;
  parser.body_limit(boost::none);
  if (!error) co_await http::async_read_header(stream, buffer, parser, asio::redirect_error(use_awaitable, error));
  if (error || parser.get().result_int() == 503) co_return false;
  if (parser.get().result_int() != 200) throw Error(ErrorCode::kMismatch, "events: expected 200, found another status");
  ServerEventParser events;
  char chunk[16384];
  stream.expires_at(end);
  while (!parser.is_done()) {
    parser.get().body().data = chunk;
    parser.get().body().size = sizeof chunk;
    co_await http::async_read_some(stream, buffer, parser, asio::redirect_error(use_awaitable, error));
    if (error == http::error::need_buffer) error = {};
    const std::size_t bytes = sizeof chunk - parser.get().body().size;
    events.feed({chunk, bytes}, [&](const ServerEvent& event) {
      std::int64_t number = 0;
      std::from_chars(event.id.data(), event.id.data() + event.id.size(), number);
      if (event.type == "metric") reader.ids.push_back(number);
    });
    if (error == beast::error::timeout) co_return true;  // the time is over
    if (error) break;
  }
  reader.lost = true;
  co_return true;
}

asio::awaitable<void> read_stream(const Server& server, const std::string& target, const std::string& after, Clock::time_point end,
                                  Reader& reader) {
  asio::steady_timer pause(co_await asio::this_coro::executor);
  while (!co_await read_once(server, target, after, end, reader)) {
    ++reader.turned_away;
    pause.expires_after(std::chrono::milliseconds(100));
    co_await pause.async_wait(use_awaitable);
  }
}

}  // namespace

Server server_of(const std::string& text) {
  const std::size_t colon = text.rfind(':');
  if (colon == std::string::npos) throw Error(ErrorCode::kUsage, "server: expected HOST:PORT, found " + text);
  return {text.substr(0, colon), text.substr(colon + 1)};
}

void serve_hello(std::size_t bytes) {
  asio::io_context io(1);
  tcp::acceptor acceptor(io, {asio::ip::make_address("127.0.0.1"), 0});
  const auto body = std::make_shared<const std::string>(bytes, 'x');
  std::cout << "listening on 127.0.0.1:" << acceptor.local_endpoint().port() << std::endl;
  asio::co_spawn(io, accept_for_ever(acceptor, body), asio::detached);
  io.run();
}

json load_requests(const Server& server, const std::vector<std::string>& targets, double rate, double seconds, int connections) {
  asio::io_context io(1);
  Measured measured;
  const Plan plan{server, targets, Clock::now() + std::chrono::milliseconds(200), rate,
                  static_cast<std::int64_t>(rate * seconds), connections};
  std::vector<asio::awaitable<void>> tasks;
  for (int i = 0; i < connections; ++i) tasks.push_back(send_requests(plan, i, measured));
  run_all(io, std::move(tasks));
  json result = latencies(measured.seconds);
  result["errors"] = measured.errors;
  return result;
}

json load_submits(const Server& server, const std::string& target, const std::string& body, int count, const std::string& folder) {
  asio::io_context io(1);
  std::vector<double> submits, syncs;
  std::vector<asio::awaitable<void>> tasks;
  tasks.push_back(submit_in_turns(server, target, body, count, folder, submits, syncs));
  run_all(io, std::move(tasks));
  return {{"submit", latencies(submits)}, {"write_and_fsync", latencies(syncs)}};
}

json read_events(const Server& server, const std::string& target, const std::string& after, int readers, double seconds) {
  asio::io_context io(1);
  const auto end = Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  std::vector<Reader> all(static_cast<std::size_t>(readers));
  std::vector<asio::awaitable<void>> tasks;
  for (Reader& reader : all) tasks.push_back(read_stream(server, target, after, end, reader));
  run_all(io, std::move(tasks));

  // Another job's events have numbers too: what there was is what any reader has seen.
  std::vector<std::int64_t> known;
  for (const Reader& reader : all) known.insert(known.end(), reader.ids.begin(), reader.ids.end());
  std::sort(known.begin(), known.end());
  known.erase(std::unique(known.begin(), known.end()), known.end());
  std::size_t least = SIZE_MAX, most = 0;
  std::int64_t missed = 0, out_of_order = 0, lost = 0;
  for (const Reader& reader : all) {
    least = std::min(least, reader.ids.size());
    most = std::max(most, reader.ids.size());
    lost += reader.lost ? 1 : 0;
    if (reader.ids.empty()) continue;
    const bool ascending = std::adjacent_find(reader.ids.begin(), reader.ids.end(), std::greater_equal<>()) == reader.ids.end();
    out_of_order += ascending ? 0 : 1;
    const auto first = std::lower_bound(known.begin(), known.end(), reader.ids.front());
    const auto last = std::upper_bound(known.begin(), known.end(), reader.ids.back());
    missed += (last - first) - static_cast<std::int64_t>(reader.ids.size());
  }
  return {{"readers", readers}, {"events_least", least}, {"events_most", most},
          {"missed", missed},   {"out_of_order", out_of_order}, {"lost_connections", lost}};
}

}  // namespace onestep
