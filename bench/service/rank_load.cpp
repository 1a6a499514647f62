#include "service/rank_load.h"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <chrono>
#include <map>
#include <memory>

#include "common/error.h"
#include "common/protocol.h"
#include "service/http_load.h"
#include "service/latencies.h"

namespace onestep {
namespace {

namespace asio = boost::asio;
using asio::use_awaitable;
using asio::ip::tcp;
using nlohmann::json;

constexpr auto kLastAnswers = std::chrono::seconds(10);  // that acknowledgements are waited for at the end

struct Totals {
  std::int64_t messages = 0, facts = 0, acknowledged = 0, refused = 0, late = 0, next_shard = 0;
  std::vector<double> answered, sent;
};

class Rank : public std::enable_shared_from_this<Rank> {
 public:
  Rank(asio::io_context& io, const RankLoad& load, int rank, Totals& totals)
      : load_(load), rank_(rank), totals_(totals), socket_(io), timer_(io) {}

  asio::awaitable<void> run(Clock::time_point start) {
    const auto self = shared_from_this();
    const Server server = server_of(load_.telemetry);
    co_await socket_.async_connect({asio::ip::make_address(server.host), static_cast<std::uint16_t>(std::stoi(server.port))},
                                   use_awaitable);
    socket_.set_option(tcp::no_delay(true));
    co_await send(hello());
    asio::co_spawn(socket_.get_executor(), [self] { return self->receive(); }, asio::detached);
    const double period = 1 / load_.messages_per_second;
    const auto total = static_cast<std::int64_t>(load_.seconds * load_.messages_per_second);
    for (std::int64_t i = 0; i < total && !gone_; ++i) {
      // Ranks are spread over the period, as they are in life.
      const double at = (static_cast<double>(i) + static_cast<double>(rank_) / load_.ranks) * period;
      const auto due = start + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(at));
      timer_.expires_at(due);
      co_await timer_.async_wait(use_awaitable);
      if (seconds_since(due) > 1) ++totals_.late;
      const auto begun = Clock::now();
      co_await send(message(i));
      totals_.sent.push_back(seconds_since(begun));
    }
    const auto end = Clock::now() + kLastAnswers;
    while (!unanswered_.empty() && !gone_ && Clock::now() < end) {
      timer_.expires_after(std::chrono::milliseconds(50));
      co_await timer_.async_wait(use_awaitable);
    }
    boost::system::error_code ignored;
    socket_.close(ignored);
  }

 private:
  // Not where it is sent: GCC 12 can't build such a value inside a coroutine.
  [[nodiscard]] Message hello() const {
    return {.type = MessageType::kHello,
            .body = {{"job", load_.job},
                     {"attempt", 1},
                     {"rank", rank_},
                     {"ranks", load_.ranks},
                     {"pid", 1},
                     {"host", "bench"},
                     {"commit", "bench"}}};
  }

  Message message(std::int64_t i) {
    if (load_.fact_every > 0 && (i + rank_) % load_.fact_every == 0) {
      const std::int64_t shard = totals_.next_shard++;
      ++totals_.facts;
      unanswered_[++sequence_] = Clock::now();
      return {.type = MessageType::kShardDone,
              .sequence = sequence_,
              .body = {{"attempt", 1}, {"index", shard}, {"first", shard}, {"count", 1}, {"sha256", std::string(64, 'b')}}};
    }
    if (rank_ != 0) return {};
    const std::int64_t iteration = load_.first_iteration + i;
    json metrics;
    for (int m = 0; m < 10; ++m) metrics["metric_" + std::to_string(m)] = 0.5 * m;
    return {.type = MessageType::kProgress,
            .body = {{"stage", "pairs"},
                     {"iteration", iteration},
                     {"iterations", 1'000'000},
                     {"images", iteration},
                     {"images_total", 1'000'000},
                     {"images_per_second", 100.0},
                     {"seconds_left", 10.0},
                     {"metrics", metrics}}};
  }

  asio::awaitable<void> send(const Message& message) {
    const std::string frame = encode_frame(message);
    boost::system::error_code error;
    co_await asio::async_write(socket_, asio::buffer(frame), asio::redirect_error(use_awaitable, error));
    if (error) gone_ = true;
    ++totals_.messages;
  }

  asio::awaitable<void> receive() {
    const auto self = shared_from_this();
    FrameReader frames;
    char bytes[4096];
    for (;;) {
      boost::system::error_code error;
      const std::size_t count = co_await socket_.async_read_some(asio::buffer(bytes), asio::redirect_error(use_awaitable, error));
      if (error) co_return;
      frames.feed({bytes, count});
      while (const auto message = frames.next()) {
        if (message->type == MessageType::kRefused) {
          ++totals_.refused;
          gone_ = true;
        }
        if (message->type != MessageType::kAcknowledge) continue;
        const auto sent = unanswered_.find(message->body.at("sequence").get<std::uint64_t>());
        if (sent == unanswered_.end()) continue;
        ++totals_.acknowledged;
        totals_.answered.push_back(seconds_since(sent->second));
        unanswered_.erase(sent);
      }
    }
  }

  const RankLoad& load_;
  const int rank_;
  Totals& totals_;
  tcp::socket socket_;
  asio::steady_timer timer_;
  std::map<std::uint64_t, Clock::time_point> unanswered_;
  std::uint64_t sequence_ = 0;
  bool gone_ = false;
};

}  // namespace

json load_ranks(const RankLoad& load) {
  asio::io_context io(1);
  Totals totals;
  totals.next_shard = load.first_shard;
  const auto start = Clock::now() + std::chrono::milliseconds(500);
  for (int rank = 0; rank < load.ranks; ++rank) {
    const auto each = std::make_shared<Rank>(io, load, rank, totals);
    asio::co_spawn(io, [each, start] { return each->run(start); }, [](const std::exception_ptr& error) {
      if (error) std::rethrow_exception(error);
    });
  }
  io.run();
  return {{"messages", totals.messages},       {"facts", totals.facts},
          {"acknowledged", totals.acknowledged}, {"refused", totals.refused},
          {"late", totals.late},               {"acknowledge", latencies(totals.answered)},
          {"send", latencies(totals.sent)}};
}

}  // namespace onestep
