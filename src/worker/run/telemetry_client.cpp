#include "worker/run/telemetry_client.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/connect.hpp>
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
#include <cerrno>
#include <charconv>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <deque>
#include <filesystem>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <tuple>
#include <utility>

#include "common/build_info.h"
#include "common/durable_file.h"
#include "common/error.h"
#include "common/log.h"
#include "common/secret.h"

namespace onestep {
namespace asio = boost::asio;
namespace fs = std::filesystem;
using asio::ip::tcp;
using boost::system::error_code;
using nlohmann::json;
using std::chrono::milliseconds;

// Where the coordinator listens, as its address file says.
struct CoordinatorAddress {
  std::string host;
  std::string port;
  std::string authority;  // PEM of what vouches for it; "": no TLS, it is on this host
};

namespace {

constexpr milliseconds kFirstBackoff{100}, kLastBackoff{2'000};
constexpr milliseconds kAnswerTime{5'000};  // to connect, and for the answer to a hello
constexpr milliseconds kHeartbeatTime{1'000};
constexpr unsigned kUnackedBytesTime_ms = 10'000;  // TCP gives a silent peer up after this

// Where one message of the outbox comes from; its file's name says it.
struct Origin {
  int attempt = 0;
  int rank = 0;
  std::uint64_t sequence = 0;
};

std::string outbox_file_name(const Origin& origin) {
  return "a" + std::to_string(origin.attempt) + "-r" + std::to_string(origin.rank) + "-" +
         std::to_string(origin.sequence) + ".cbor";
}

// nullopt for a file of another name, such as the temporary one of a write that was cut off.
std::optional<Origin> parse_outbox_file_name(const std::string& name) {
  Origin origin;
  unsigned long long sequence = 0;
  if (std::sscanf(name.c_str(), "a%d-r%d-%llu.cbor", &origin.attempt, &origin.rank, &sequence) != 3) return {};
  origin.sequence = sequence;
  if (outbox_file_name(origin) != name) return {};
  return origin;
}

std::string outbox_content(const Message& message) {
  const json record = {{"type", static_cast<int>(message.type)}, {"sequence", message.sequence}, {"body", message.body}};
  const std::vector<std::uint8_t> bytes = json::to_cbor(record);
  return {bytes.begin(), bytes.end()};
}

// Errors: kCorrupt naming the file.
Message read_outbox_file(const std::string& path) {
  const std::string bytes = read_file(path);
  const json record = json::from_cbor(bytes.begin(), bytes.end(), true, false);
  try {
    Message message;
    message.type = static_cast<MessageType>(record.at("type").get<int>());
    message.sequence = record.at("sequence").get<std::uint64_t>();
    message.body = record.at("body");
    if (must_be_acknowledged(message.type) && message.body.is_object()) return message;
  } catch (const json::exception&) {
    // said below
  }
  throw Error(ErrorCode::kCorrupt, path + ": expected {type, sequence, body} of a message that is acknowledged, found " +
                                       std::to_string(bytes.size()) + " bytes of something else");
}

// Errors: Error, when the file is not there or doesn't say.
CoordinatorAddress read_address(const std::string& path) {
  const json document = json::parse(read_file(path), nullptr, false);
  const auto text = [&](const char* key) {
    return document.is_object() && document.contains(key) && document[key].is_string() ? document[key].get<std::string>() : "";
  };
  const std::string address = text("telemetry");
  const auto colon = address.rfind(':');
  unsigned port = 0;
  if (colon != std::string::npos && colon > 0) {
    std::from_chars(address.data() + colon + 1, address.data() + address.size(), port);
  }
  if (port == 0 || port > 65535) {
    throw Error(ErrorCode::kCorrupt, path + ": /telemetry: expected an address such as \"127.0.0.1:40123\", found " +
                                         (document.is_object() ? document.value("telemetry", json()).dump() : "no object"));
  }
  return {address.substr(0, colon), std::to_string(port), text("telemetry_authority")};
}

// A refusal that will not change: this attempt is no longer, or never was, the coordinator's.
bool is_final(const std::string& code) {
  return code == to_string(ErrorCode::kConflict) || code == to_string(ErrorCode::kNotFound);
}

json hello_body(const TelemetryOptions& options) {
  std::array<char, 256> host{};
  if (gethostname(host.data(), host.size() - 1) != 0) host[0] = '\0';
  json body = {{"job", options.job},       {"attempt", options.attempt}, {"rank", options.rank},
               {"ranks", options.ranks},   {"pid", getpid()},            {"host", host.data()},
               {"commit", build_commit()}};
  if (!options.token_file.empty() && file_exists(options.token_file)) {
    body["token"] = read_secret_file(options.token_file);
  }
  return body;
}

}  // namespace

class TelemetryClient::Implementation {
 public:
  explicit Implementation(const TelemetryOptions& options)
      : options_(options), hello_(hello_body(options)), wake_(io_), backoff_timer_(io_), alarm_(io_) {
    wake_.expires_at(asio::steady_timer::time_point::max());
    create_folders_durably(options_.outbox_folder);
    load_outbox();
    asio::co_spawn(io_, run(), [](std::exception_ptr error) {
      if (!error) return;
      try {
        std::rethrow_exception(error);
      } catch (const std::exception& exception) {
        log_error(std::string("telemetry: the client ended: ") + exception.what());
      }
    });
    thread_ = std::thread([this] { io_.run(); });
  }

  ~Implementation() {
    asio::post(io_, [this] {
      stopping_ = true;
      wake_.cancel();
      backoff_timer_.cancel();
      hang_up();
    });
    thread_.join();
  }

  void post(MessageType type, const json& body) {
    Message message{.type = type, .body = body};
    static_cast<void>(encode_frame(message));  // what can't be sent is refused here, not over and over in the thread
    if (must_be_acknowledged(type)) {
      keep(std::move(message));
    } else {
      const std::lock_guard lock(mutex_);
      reports_.emplace_back(next_order_++, std::move(message));
      if (reports_.size() > kQueuedReports) reports_.pop_front();
    }
    wake_writer();
  }

  void request_shards() {
    {
      const std::lock_guard lock(mutex_);
      shards_wanted_ = true;
      shards_asked_ = false;
    }
    wake_writer();
  }

  std::vector<TelemetryCommand> poll() {
    const std::lock_guard lock(mutex_);
    return std::exchange(commands_, {});
  }

  bool drain(double timeout_s) {
    std::unique_lock lock(mutex_);
    const auto empty = [this] { return pending_.empty() && reports_.empty(); };
    changed_.wait_for(lock, std::chrono::duration<double>(timeout_s), [&] { return refused_ || empty(); });
    return empty();
  }

 private:
  struct Pending {
    std::uint64_t order = 0;  // of posting, among all messages
    Message message;
    std::string path;  // "": it could not be written
  };

  // ---- Any thread ----

  // On disk first, then in line to be sent; one at a time, so that they get in line in the order of their numbers.
  void keep(Message message) {
    const std::lock_guard one_at_a_time(keeping_);
    {
      const std::lock_guard lock(mutex_);
      message.sequence = next_sequence_++;
    }
    std::string path =
        options_.outbox_folder + "/" + outbox_file_name({options_.attempt, options_.rank, message.sequence});
    try {
      write_file_durably(path, outbox_content(message));
    } catch (const Error& error) {
      log_error(std::string("telemetry: message not on disk, it is lost if this process ends first: ") + error.what());
      path.clear();
    }
    const std::lock_guard lock(mutex_);
    const std::uint64_t sequence = message.sequence;
    pending_[sequence] = {next_order_++, std::move(message), std::move(path)};
  }

  void wake_writer() {
    asio::post(io_, [this] { wake_.cancel(); });
  }

  // ---- Construction ----

  // This rank's own messages keep their numbers. Those of earlier attempts get new ones, of this attempt, and say in their
  // bodies where they come from; rank 0 brings them all.
  void load_outbox() {
    std::vector<std::pair<Origin, std::string>> files;
    for (const auto& entry : fs::directory_iterator(options_.outbox_folder)) {
      if (const auto origin = parse_outbox_file_name(entry.path().filename().string())) {
        files.emplace_back(*origin, entry.path().string());
      }
    }
    std::sort(files.begin(), files.end(), [](const auto& a, const auto& b) {
      return std::tuple(a.first.attempt, a.first.sequence, a.first.rank) <
             std::tuple(b.first.attempt, b.first.sequence, b.first.rank);
    });
    const auto is_own = [this](const Origin& o) { return o.attempt == options_.attempt && o.rank == options_.rank; };
    for (const auto& [origin, path] : files) {
      if (is_own(origin)) next_sequence_ = std::max(next_sequence_, origin.sequence + 1);
    }
    for (const auto& [origin, path] : files) {
      if (!is_own(origin) && (options_.rank != 0 || origin.attempt >= options_.attempt)) continue;
      try {
        Message message = read_outbox_file(path);
        if (is_own(origin)) {
          message.sequence = origin.sequence;
        } else {
          message.sequence = next_sequence_++;
          message.body["origin_attempt"] = origin.attempt;
          message.body["origin_rank"] = origin.rank;
          message.body["origin_sequence"] = origin.sequence;
        }
        const std::uint64_t sequence = message.sequence;
        pending_[sequence] = {next_order_++, std::move(message), path};
      } catch (const Error& error) {
        log_warning(std::string("telemetry: left in the outbox: ") + error.what());
      }
    }
  }

  // ---- The client's own thread ----

  // Connects, serves the connection, and again until the end.
  asio::awaitable<void> run() {
    milliseconds backoff = kFirstBackoff;
    while (!stopping_ && !is_refused()) {
      tls_.reset();
      tls_context_.reset();
      socket_.emplace(io_);
      frames_ = {};
      std::string trouble;
      bool welcome = false;
      try {
        welcome = co_await connect();
        if (welcome) {
          backoff = kFirstBackoff;
          last_trouble_.clear();
          co_await serve();
          trouble = "the connection ended";
        } else {
          trouble = "the coordinator does not take this rank now";
        }
      } catch (const boost::system::system_error& error) {
        trouble = "connection to the coordinator: " + error.code().message();
      } catch (const std::exception& error) {
        trouble = error.what();
      }
      hang_up();
      if (stopping_ || is_refused()) break;
      if (trouble != last_trouble_) log_warning("telemetry: " + trouble + "; trying again, training goes on");
      last_trouble_ = trouble;
      error_code ignored;
      backoff_timer_.expires_after(backoff);
      co_await backoff_timer_.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
      backoff = std::min(2 * backoff, kLastBackoff);
    }
  }

  // Says hello. True when welcome; false when refused. Errors: whatever goes wrong, as text for people.
  asio::awaitable<bool> connect() {
    const CoordinatorAddress address = read_address(options_.address_file);
    start_alarm(kAnswerTime);
    tcp::resolver resolver(io_);
    const auto endpoints = co_await resolver.async_resolve(address.host, address.port, asio::use_awaitable);
    co_await asio::async_connect(*socket_, endpoints, asio::use_awaitable);
    socket_->set_option(tcp::no_delay(true));
    if (setsockopt(socket_->native_handle(), IPPROTO_TCP, TCP_USER_TIMEOUT, &kUnackedBytesTime_ms,
                   sizeof kUnackedBytesTime_ms) != 0) {
      throw Error(ErrorCode::kInternal, "setsockopt TCP_USER_TIMEOUT: " + std::string(std::strerror(errno)));
    }
    if (!address.authority.empty()) {
      trust(address.authority);
      co_await tls_->async_handshake(asio::ssl::stream_base::client, asio::use_awaitable);
    }
    const std::string frame = encode_frame({.type = MessageType::kHello, .body = hello_});
    co_await write_bytes(frame);
    for (;;) {
      const Message answer = co_await read_message();
      if (answer.type == MessageType::kWelcome) break;
      if (answer.type == MessageType::kRefused) {
        take_refusal(answer.body);
        co_return false;
      }
    }
    alarm_.cancel();
    {
      const std::lock_guard lock(mutex_);
      sent_up_to_ = 0;
      shards_asked_ = false;
    }
    co_return true;
  }

  // The address file lies where only this job's user writes, so the authority that it names is the coordinator's: no name
  // needs to fit, and no clock needs to agree.
  void trust(const std::string& authority) {
    tls_context_.emplace(asio::ssl::context::tls_client);
    tls_context_->add_certificate_authority(asio::buffer(authority));
    tls_context_->set_verify_mode(asio::ssl::verify_peer);
    SSL_CTX_set_min_proto_version(tls_context_->native_handle(), TLS1_2_VERSION);
    X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(tls_context_->native_handle()), X509_V_FLAG_NO_CHECK_TIME);
    tls_.emplace(*socket_, *tls_context_);
  }

  asio::awaitable<void> write_bytes(const std::string& bytes) {
    if (tls_) {
      co_await asio::async_write(*tls_, asio::buffer(bytes), asio::use_awaitable);
    } else {
      co_await asio::async_write(*socket_, asio::buffer(bytes), asio::use_awaitable);
    }
  }

  // Reads and writes until either ends.
  asio::awaitable<void> serve() {
    bool writer_ended = false;
    asio::steady_timer writer_end(io_);
    writer_end.expires_at(asio::steady_timer::time_point::max());
    asio::co_spawn(io_, write_messages(), [&](std::exception_ptr) {
      writer_ended = true;
      hang_up();
      writer_end.cancel();
    });
    std::exception_ptr trouble;
    try {
      while (true) take(co_await read_message());
    } catch (...) {
      trouble = std::current_exception();
    }
    hang_up();
    wake_.cancel();
    while (!writer_ended) {
      error_code ignored;
      co_await writer_end.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
    }
    std::rethrow_exception(trouble);
  }

  asio::awaitable<Message> read_message() {
    std::array<char, 16 * 1024> bytes;
    for (;;) {
      if (std::optional<Message> message = frames_.next()) co_return std::move(*message);
      std::size_t size = 0;
      if (tls_) {
        size = co_await tls_->async_read_some(asio::buffer(bytes), asio::use_awaitable);
      } else {
        size = co_await socket_->async_read_some(asio::buffer(bytes), asio::use_awaitable);
      }
      frames_.feed({bytes.data(), size});
    }
  }

  void take(const Message& message) {
    switch (message.type) {
      case MessageType::kAcknowledge: return acknowledge(message.body);
      case MessageType::kRefused: return take_refusal(message.body);
      case MessageType::kShardPlan:
      case MessageType::kStop:
      case MessageType::kCheckpointNow: {
        const std::lock_guard lock(mutex_);
        if (message.type == MessageType::kShardPlan) shards_wanted_ = false;
        commands_.push_back({message.type, message.body});
        return;
      }
      default: return;  // a second welcome says nothing new
    }
  }

  void acknowledge(const json& body) {
    const auto sequence = body.find("sequence");
    if (sequence == body.end() || !sequence->is_number_unsigned()) {
      throw Error(ErrorCode::kCorrupt, "acknowledgement: /sequence: expected a number, found " + body.dump());
    }
    std::string path;
    {
      const std::lock_guard lock(mutex_);
      const auto pending = pending_.find(sequence->get<std::uint64_t>());
      if (pending == pending_.end()) return;  // acknowledged twice after a reconnection
      path = pending->second.path;
    }
    // The file goes first: whoever sees drain() return finds an empty outbox.
    try {
      if (!path.empty()) remove_file_durably(path);
    } catch (const Error& error) {
      log_warning(std::string("telemetry: acknowledged, but still in the outbox: ") + error.what());
    }
    const std::lock_guard lock(mutex_);
    pending_.erase(sequence->get<std::uint64_t>());
    changed_.notify_all();
  }

  void take_refusal(const json& body) {
    const std::string code = body.contains("code") && body["code"].is_string() ? body["code"].get<std::string>() : "";
    log_warning("telemetry: refused: " + body.dump());
    if (!is_final(code)) return;
    const std::lock_guard lock(mutex_);
    refused_ = true;
    commands_.push_back({MessageType::kRefused, body});
    changed_.notify_all();
  }

  // Sends what waits in the order of posting; a heartbeat when there has been nothing for a while.
  asio::awaitable<void> write_messages() {
    auto last_sent = std::chrono::steady_clock::now() - kHeartbeatTime;
    while (socket_->is_open()) {
      std::optional<Message> message = next_to_send();
      if (!message && std::chrono::steady_clock::now() - last_sent >= kHeartbeatTime) {
        message = Message{.type = MessageType::kHeartbeat};
      }
      if (message) {
        const std::string frame = encode_frame(*message);
        co_await write_bytes(frame);
        last_sent = std::chrono::steady_clock::now();
        continue;
      }
      {
        const std::lock_guard lock(mutex_);
        changed_.notify_all();  // nothing waits: drain() may look
      }
      error_code ignored;
      wake_.expires_at(last_sent + kHeartbeatTime);
      co_await wake_.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
    }
  }

  std::optional<Message> next_to_send() {
    const std::lock_guard lock(mutex_);
    if (shards_wanted_ && !shards_asked_) {
      shards_asked_ = true;
      return Message{.type = MessageType::kLeaseRequest};
    }
    // Sequence numbers and posting order agree, so the first unsent one is the oldest.
    const auto kept = pending_.upper_bound(sent_up_to_);
    if (kept != pending_.end() && (reports_.empty() || kept->second.order < reports_.front().first)) {
      sent_up_to_ = kept->first;
      return kept->second.message;
    }
    if (reports_.empty()) return std::nullopt;
    Message message = std::move(reports_.front().second);
    reports_.pop_front();
    return message;
  }

  bool is_refused() {
    const std::lock_guard lock(mutex_);
    return refused_;
  }

  // Hangs up unless cancelled within the time.
  void start_alarm(milliseconds time) {
    alarm_.expires_after(time);
    alarm_.async_wait([this](error_code cancelled) {
      if (!cancelled) hang_up();
    });
  }

  void hang_up() {
    error_code ignored;
    alarm_.cancel();
    if (socket_) socket_->close(ignored);
  }

  const TelemetryOptions options_;
  const json hello_;
  asio::io_context io_{1};
  std::optional<tcp::socket> socket_;
  std::optional<asio::ssl::context> tls_context_;
  std::optional<asio::ssl::stream<tcp::socket&>> tls_;  // around the socket, where the coordinator is on another host
  FrameReader frames_;
  asio::steady_timer wake_, backoff_timer_, alarm_;
  bool stopping_ = false;
  std::string last_trouble_;

  std::mutex keeping_;
  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::map<std::uint64_t, Pending> pending_;                // by sequence
  std::deque<std::pair<std::uint64_t, Message>> reports_;   // by order
  std::vector<TelemetryCommand> commands_;
  std::uint64_t next_order_ = 0, next_sequence_ = 1;
  std::uint64_t sent_up_to_ = 0;                            // sequence, in this connection
  bool shards_wanted_ = false, shards_asked_ = false;
  bool refused_ = false;

  std::thread thread_;
};

TelemetryClient::TelemetryClient() = default;
TelemetryClient::TelemetryClient(const TelemetryOptions& options)
    : implementation_(std::make_unique<Implementation>(options)) {}
TelemetryClient::~TelemetryClient() = default;

void TelemetryClient::post(MessageType type, const json& body) {
  if (implementation_) implementation_->post(type, body);
}
void TelemetryClient::request_shards() {
  if (implementation_) implementation_->request_shards();
}
std::vector<TelemetryCommand> TelemetryClient::poll() {
  return implementation_ ? implementation_->poll() : std::vector<TelemetryCommand>{};
}
bool TelemetryClient::drain(double timeout_s) { return implementation_ ? implementation_->drain(timeout_s) : true; }

}  // namespace onestep
