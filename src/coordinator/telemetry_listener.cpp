#include "coordinator/telemetry_listener.h"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>

#include <array>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "common/log.h"
#include "coordinator/close_on_exec.h"

namespace onestep {
namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

namespace {

constexpr std::chrono::milliseconds kClosingTime{1'000};  // for the last bytes of a connection

std::string describe(const RankId& rank) {
  return rank.job + " attempt " + std::to_string(rank.attempt) + " rank " +
         std::to_string(rank.rank);
}

bool comes_from_workers(MessageType type) {
  return static_cast<std::uint8_t>(type) < static_cast<std::uint8_t>(MessageType::kWelcome);
}

// One accepted socket. Lives as long as its coroutines.
struct Connection {
  Connection(tcp::socket accepted, asio::ssl::context* context)
      : socket(std::move(accepted)), wake(socket.get_executor()), deadline(socket.get_executor()) {
    error_code ignored;
    const tcp::endpoint remote = socket.remote_endpoint(ignored);
    peer = remote.address().to_string() + ":" + std::to_string(remote.port());
    wake.expires_at(asio::steady_timer::time_point::max());
    if (context != nullptr) tls.emplace(socket, *context);
  }

  tcp::socket socket;
  std::optional<asio::ssl::stream<tcp::socket&>> tls;  // around it
  asio::steady_timer wake;  // cancelled when there is something to write, or nothing more will come
  asio::steady_timer deadline;  // for the hello, and for the last bytes of a closing connection
  asio::cancellation_signal stop_reading;
  std::string peer;
  std::optional<RankId> rank;  // after its hello was accepted
  std::deque<std::string> unsent;
  std::size_t num_unsent_bytes = 0;
  bool closing = false;  // no more is read; what is unsent still goes out
};
using ConnectionPtr = std::shared_ptr<Connection>;

}  // namespace

class TelemetryListener::Implementation : public std::enable_shared_from_this<Implementation> {
 public:
  Implementation(asio::io_context& io, TelemetryLimits limits, TelemetryHandlers handlers,
                 const std::optional<TelemetryDoor>& door)
      : io_(io), limits_(limits), handlers_(std::move(handlers)), acceptor_(io), retry_(io) {
    if (door) open_door(*door);
    const tcp::endpoint endpoint(door ? asio::ip::address_v4::any() : asio::ip::address_v4::loopback(), 0);
    try {
      acceptor_.open(endpoint.protocol());
      close_on_exec(acceptor_.native_handle());
      acceptor_.bind(endpoint);
      acceptor_.listen();
    } catch (const boost::system::system_error& error) {
      throw Error(ErrorCode::kUnavailable,
                  "telemetry: can't listen on a free port of " + endpoint.address().to_string() + ": " + error.code().message());
    }
  }

  std::string address() const {
    return host_ + ":" + std::to_string(acceptor_.local_endpoint().port());
  }
  int num_connections() const { return static_cast<int>(connections_.size()); }

  void start() { asio::co_spawn(io_, accept_all(shared_from_this()), asio::detached); }

  void stop() {
    error_code ignored;
    acceptor_.close(ignored);
    retry_.cancel();
    for (const ConnectionPtr& connection : connections_) hang_up(*connection);
  }

  int send(const RankId& to, const Message& message) {
    int num_reached = 0;
    for (auto it = ranks_.lower_bound({to.job, 0}); it != ranks_.end() && it->first.first == to.job;
         ++it) {
      const RankId& rank = *it->second->rank;
      if (rank.attempt != to.attempt || (to.rank != -1 && rank.rank != to.rank)) continue;
      enqueue(*it->second, message);
      ++num_reached;
    }
    return num_reached;
  }

 private:
  void open_door(const TelemetryDoor& door) {
    host_ = door.host;
    tls_.emplace(asio::ssl::context::tls_server);
    tls_->set_options(asio::ssl::context::default_workarounds | asio::ssl::context::no_compression);
    SSL_CTX_set_min_proto_version(tls_->native_handle(), TLS1_2_VERSION);
    try {
      tls_->use_certificate_chain_file(door.certificate);
      tls_->use_private_key_file(door.key, asio::ssl::context::pem);
    } catch (const boost::system::system_error& error) {
      throw Error(ErrorCode::kCorrupt, "telemetry: " + door.certificate + ", " + door.key + ": expected a certificate and its key (PEM); " +
                                           error.code().message());
    }
  }

  // Below, `self` keeps the object alive for as long as a coroutine runs.
  asio::awaitable<void> accept_all(std::shared_ptr<Implementation> self) {
    while (acceptor_.is_open()) {
      error_code error;
      tcp::socket socket(io_);
      co_await acceptor_.async_accept(socket, asio::redirect_error(asio::use_awaitable, error));
      if (!acceptor_.is_open()) co_return;
      if (error || num_connections() >= limits_.connections) {
        log_warning("telemetry: connection not taken: " +
                    (error ? error.message() : "limit " + std::to_string(limits_.connections)));
        retry_.expires_after(std::chrono::milliseconds(200));
        co_await retry_.async_wait(asio::redirect_error(asio::use_awaitable, error));
        continue;
      }
      close_on_exec(socket.native_handle());
      auto connection = std::make_shared<Connection>(std::move(socket), tls_ ? &*tls_ : nullptr);
      connections_.insert(connection);
      set_deadline(connection, limits_.hello_timeout);
      asio::co_spawn(io_, read_connection(self, connection), asio::detached);
      asio::co_spawn(io_, write_connection(self, connection), asio::detached);
    }
  }

  asio::awaitable<void> read_connection(std::shared_ptr<Implementation> self,
                                        ConnectionPtr connection) {
    try {
      FrameReader frames;
      std::array<char, 16 * 1024> bytes;
      error_code error;
      if (connection->tls) {
        co_await connection->tls->async_handshake(asio::ssl::stream_base::server,
                                                  asio::redirect_error(asio::use_awaitable, error));
        if (error) {
          log_warning("telemetry: " + connection->peer + ": no TLS: " + error.message());
          hang_up(*connection);
        }
      }
      while (!connection->closing) {
        auto token = asio::bind_cancellation_slot(connection->stop_reading.slot(),
                                                        asio::redirect_error(asio::use_awaitable, error));
        std::size_t size = 0;
        if (connection->tls) {
          size = co_await connection->tls->async_read_some(asio::buffer(bytes), token);
        } else {
          size = co_await connection->socket.async_read_some(asio::buffer(bytes), token);
        }
        if (error) break;
        frames.feed({bytes.data(), size});
        while (!connection->closing) {
          const std::optional<Message> message = frames.next();
          if (!message) break;
          receive(connection, *message);
        }
      }
    } catch (const Error& error) {
      refuse(*connection, error);
    } catch (const std::exception& error) {
      refuse(*connection, Error(ErrorCode::kInternal, error.what()));
    }
    self->forget(connection);
    connection->closing = true;
    if (connection->socket.is_open()) set_deadline(connection, kClosingTime);
    connection->wake.cancel();  // the writer sends what is left and closes
  }

  // Errors: Error for what is then refused.
  void receive(const ConnectionPtr& connection, const Message& message) {
    if (!connection->rank) {
      if (message.type != MessageType::kHello) {
        throw Error(ErrorCode::kCorrupt, "first message: expected hello (type 1), found type " +
                                             std::to_string(static_cast<int>(message.type)));
      }
      const Hello hello = hello_from_json(message.body);
      const HelloAnswer answer = handlers_.hello(hello);
      if (answer.refusal) throw Error(answer.refusal->code, answer.refusal->reason);
      welcome(connection, {hello.job, hello.attempt, hello.rank});
      for (const Message& command : answer.commands) enqueue(*connection, command);
      return;
    }
    if (message.type == MessageType::kHello || !comes_from_workers(message.type)) {
      throw Error(ErrorCode::kCorrupt, "message of type " +
                                           std::to_string(static_cast<int>(message.type)) +
                                           ": not expected from a worker after its hello");
    }
    if (must_be_acknowledged(message.type) && message.sequence == 0) {
      throw Error(ErrorCode::kCorrupt, "message of type " +
                                           std::to_string(static_cast<int>(message.type)) +
                                           ": expected a sequence number >= 1, found 0");
    }
    inbox_.emplace_back(connection, message);
    if (inbox_.size() == 1) asio::post(io_, [self = shared_from_this()] { self->take_inbox(); });
  }

  // All that came while the last ones were dealt with: their facts share one sync of the disk.
  void take_inbox() {
    const auto inbox = std::exchange(inbox_, {});
    std::vector<ReceivedMessage> messages;
    messages.reserve(inbox.size());
    for (const auto& [connection, message] : inbox) messages.push_back({*connection->rank, message});
    const std::vector<MessageAnswer> answers = handlers_.messages(messages);
    for (std::size_t i = 0; i < inbox.size(); ++i) {
      Connection& connection = *inbox[i].first;
      if (connection.closing) continue;
      if (const auto& refusal = answers[i].refusal) {
        refuse(connection, Error(refusal->code, refusal->reason));
        connection.stop_reading.emit(asio::cancellation_type::terminal);
        continue;
      }
      if (answers[i].acknowledge) {
        enqueue(connection, {.type = MessageType::kAcknowledge,
                             .body = {{"sequence", *answers[i].acknowledge}}});
      }
      for (const Message& reply : answers[i].replies) enqueue(connection, reply);
    }
  }

  // A rank that connects again replaces its older connection, which may be half open.
  void welcome(const ConnectionPtr& connection, const RankId& rank) {
    ConnectionPtr& slot = ranks_[{rank.job, rank.rank}];
    const ConnectionPtr older = std::exchange(slot, connection);
    if (older) hang_up(*older);
    connection->rank = rank;
    connection->deadline.expires_at(asio::steady_timer::time_point::max());
    enqueue(*connection, {.type = MessageType::kWelcome});
  }

  void refuse(Connection& connection, const Error& error) {
    log_warning("telemetry: " + (connection.rank ? describe(*connection.rank) : connection.peer) +
                ": refused: " + error.what());
    enqueue(connection, {.type = MessageType::kRefused,
                         .body = {{"code", to_string(error.code())}, {"reason", error.what()}}});
    connection.closing = true;
  }

  void enqueue(Connection& connection, const Message& message) {
    std::string frame = encode_frame(message);
    if (connection.closing) return;
    if (connection.num_unsent_bytes + frame.size() > limits_.queued_bytes) {
      log_warning("telemetry: " + connection.peer + ": closed: it doesn't read, " +
                  std::to_string(connection.num_unsent_bytes) + " bytes are unsent");
      hang_up(connection);
      return;
    }
    connection.num_unsent_bytes += frame.size();
    connection.unsent.push_back(std::move(frame));
    connection.wake.cancel();
  }

  asio::awaitable<void> write_connection(std::shared_ptr<Implementation> self,
                                         ConnectionPtr connection) {
    error_code error;
    while (!error && connection->socket.is_open()) {
      if (!connection->unsent.empty()) {
        auto token = asio::redirect_error(asio::use_awaitable, error);
        if (connection->tls) {
          co_await asio::async_write(*connection->tls, asio::buffer(connection->unsent.front()), token);
        } else {
          co_await asio::async_write(connection->socket, asio::buffer(connection->unsent.front()), token);
        }
        connection->num_unsent_bytes -= connection->unsent.front().size();
        connection->unsent.pop_front();
      } else if (connection->closing) {
        break;
      } else {
        error_code woken;
        co_await connection->wake.async_wait(asio::redirect_error(asio::use_awaitable, woken));
      }
    }
    // The reader has ended. Reading on until the other side closes: closing with unread bytes would
    // reset the connection before a refusal was seen. The reader's deadline bounds this.
    if (!error) connection->socket.shutdown(tcp::socket::shutdown_send, error);
    std::array<char, 16 * 1024> scrap;
    while (!error) {
      co_await connection->socket.async_read_some(asio::buffer(scrap),
                                                  asio::redirect_error(asio::use_awaitable, error));
    }
    hang_up(*connection);
    self->connections_.erase(connection);
  }

  // Hangs up when the time is over; an earlier deadline no longer holds.
  void set_deadline(const ConnectionPtr& connection, std::chrono::milliseconds time) {
    connection->deadline.expires_after(time);
    asio::co_spawn(io_, enforce_deadline(connection), asio::detached);
  }

  static asio::awaitable<void> enforce_deadline(ConnectionPtr connection) {
    error_code cancelled;
    co_await connection->deadline.async_wait(asio::redirect_error(asio::use_awaitable, cancelled));
    if (!cancelled) hang_up(*connection);
  }

  static void hang_up(Connection& connection) {
    error_code ignored;
    connection.closing = true;
    connection.socket.close(ignored);
    connection.wake.cancel();
    connection.deadline.expires_at(
        asio::steady_timer::time_point::min());  // a wait that starts later ends too
  }

  void forget(const ConnectionPtr& connection) {
    if (!connection->rank) return;
    const auto slot = ranks_.find({connection->rank->job, connection->rank->rank});
    if (slot == ranks_.end() || slot->second != connection) return;  // replaced by a newer one
    ranks_.erase(slot);
  }

  asio::io_context& io_;
  const TelemetryLimits limits_;
  const TelemetryHandlers handlers_;
  std::string host_ = "127.0.0.1";
  std::optional<asio::ssl::context> tls_;
  tcp::acceptor acceptor_;
  asio::steady_timer retry_;
  std::set<ConnectionPtr> connections_;
  std::vector<std::pair<ConnectionPtr, Message>> inbox_;  // not yet handed to the coordinator
  std::map<std::pair<std::string, int>, ConnectionPtr> ranks_;  // by job and rank
};

TelemetryListener::TelemetryListener(asio::io_context& io, TelemetryLimits limits,
                                     TelemetryHandlers handlers, const std::optional<TelemetryDoor>& door)
    : implementation_(std::make_shared<Implementation>(io, limits, std::move(handlers), door)) {}
TelemetryListener::~TelemetryListener() { stop(); }
std::string TelemetryListener::address() const { return implementation_->address(); }
int TelemetryListener::num_connections() const { return implementation_->num_connections(); }
void TelemetryListener::start() { implementation_->start(); }
void TelemetryListener::stop() { implementation_->stop(); }
int TelemetryListener::send(const RankId& to, const Message& message) {
  return implementation_->send(to, message);
}

}  // namespace onestep
