#include "cli/client.h"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/host_name_verification.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>

#include <algorithm>
#include <array>
#include <cctype>
#include <exception>
#include <utility>

#include "common/build_info.h"
#include "common/error.h"

namespace onestep {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using asio::use_awaitable;

constexpr std::uint64_t kMaxAnswerBytes = 64 << 20;

bool all_digits(const std::string& text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](unsigned char c) { return std::isdigit(c); });
}

std::string host_header(const ServerUrl& url) {
  const bool v6 = url.host.find(':') != std::string::npos;
  return (v6 ? "[" + url.host + "]" : url.host) + ":" + url.port;
}

// A connection; what is done with it next must be done within `timeout`, too.
asio::awaitable<beast::tcp_stream> connected(const ServerUrl& url, std::chrono::milliseconds timeout) {
  const auto executor = co_await asio::this_coro::executor;
  asio::ip::tcp::resolver resolver(executor);
  const auto addresses = co_await resolver.async_resolve(url.host, url.port, use_awaitable);
  beast::tcp_stream stream(executor);
  stream.expires_after(timeout);
  co_await stream.async_connect(addresses, use_awaitable);
  co_return stream;
}

using TlsStream = asio::ssl::stream<beast::tcp_stream>;

asio::ssl::context tls_context(const Credentials& credentials) {
  asio::ssl::context context(asio::ssl::context::tls_client);
  SSL_CTX_set_min_proto_version(context.native_handle(), TLS1_2_VERSION);
  context.set_verify_mode(asio::ssl::verify_peer);
  boost::system::error_code error;
  if (credentials.ca_file.empty()) {
    context.set_default_verify_paths();
  } else if (context.load_verify_file(credentials.ca_file, error); error) {
    throw Error(ErrorCode::kCorrupt, credentials.ca_file + ": expected certificates in PEM; " + error.message());
  }
  return context;
}

// TLS with whoever the certificate shows to be `url`'s host.
asio::awaitable<void> shake_hands(TlsStream& stream, const ServerUrl& url) {
  SSL_set_tlsext_host_name(stream.native_handle(), url.host.c_str());
  stream.set_verify_callback(asio::ssl::host_name_verification(url.host));
  co_await stream.async_handshake(asio::ssl::stream_base::client, use_awaitable);
}

template <class S>
asio::awaitable<void> exchange_on(S& stream, http::request<http::string_body>& request, ClientResponse& result) {
  co_await http::async_write(stream, request, use_awaitable);
  beast::flat_buffer buffer;
  http::response_parser<http::string_body> parser;
  parser.body_limit(kMaxAnswerBytes);
  if (request.method() == http::verb::head) parser.skip(true);
  co_await http::async_read(stream, buffer, parser, use_awaitable);
  http::response<http::string_body> response = parser.release();
  result.status = static_cast<int>(response.result_int());
  for (const auto& field : response) {
    std::string name(field.name_string());
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
    result.headers[name] = std::string(field.value());
  }
  result.body = std::move(response.body());
}

// One request on a connection of its own; the response is moved into `result`, which outlives the coroutine.
asio::awaitable<void> exchange(const ServerUrl& url, const Credentials& credentials, std::chrono::milliseconds timeout,
                               http::request<http::string_body>& request, ClientResponse& result) {
  beast::tcp_stream stream = co_await connected(url, timeout);
  if (!url.tls) {
    co_await exchange_on(stream, request, result);
    beast::error_code ignored;
    stream.socket().shutdown(asio::ip::tcp::socket::shutdown_both, ignored);
  } else {
    asio::ssl::context context = tls_context(credentials);
    TlsStream secure(std::move(stream), context);
    co_await shake_hands(secure, url);
    co_await exchange_on(secure, request, result);
  }
}

constexpr std::chrono::seconds kQuietLimit{45};  // three heartbeats

// Hands what comes to `on_bytes` until that returns false or the body ends; a status of 400 or above goes whole into `refusal`.
template <class S>
asio::awaitable<void> read_stream_on(S& stream, http::request<http::empty_body>& request,
                                     const std::function<bool(std::string_view)>& on_bytes, ClientResponse& refusal) {
  co_await http::async_write(stream, request, use_awaitable);
  beast::flat_buffer buffer;
  http::response_parser<http::buffer_body> parser;
  parser.body_limit(boost::none);
  co_await http::async_read_header(stream, buffer, parser, use_awaitable);
  refusal.status = static_cast<int>(parser.get().result_int());
  std::array<char, 16 * 1024> bytes;
  while (!parser.is_done()) {
    parser.get().body().data = bytes.data();
    parser.get().body().size = bytes.size();
    beast::get_lowest_layer(stream).expires_after(kQuietLimit);
    beast::error_code error;
    co_await http::async_read_some(stream, buffer, parser, asio::redirect_error(use_awaitable, error));
    if (error && error != http::error::need_buffer) throw boost::system::system_error(error);
    const std::string_view read(bytes.data(), bytes.size() - parser.get().body().size);
    if (refusal.status >= 400) {
      refusal.body += read.substr(0, kMaxAnswerBytes - refusal.body.size());
    } else if (!on_bytes(read)) {
      break;
    }
  }
}

asio::awaitable<void> read_stream(const ServerUrl& url, const Credentials& credentials, std::chrono::milliseconds timeout,
                                  http::request<http::empty_body>& request,
                                  const std::function<bool(std::string_view)>& on_bytes, ClientResponse& refusal) {
  beast::tcp_stream stream = co_await connected(url, timeout);
  if (!url.tls) {
    co_await read_stream_on(stream, request, on_bytes, refusal);
  } else {
    asio::ssl::context context = tls_context(credentials);
    TlsStream secure(std::move(stream), context);
    co_await shake_hands(secure, url);
    co_await read_stream_on(secure, request, on_bytes, refusal);
  }
}

bool is_this_machine(const ServerUrl& url) {
  beast::error_code error;
  const auto address = asio::ip::make_address(url.host, error);
  return url.host == "localhost" || (!error && address.is_loopback());
}

nlohmann::json parse_answer(const ClientResponse& response, const std::string& where) {
  nlohmann::json json = nlohmann::json::parse(response.body, nullptr, false);
  if (json.is_discarded()) {
    throw Error(ErrorCode::kUnavailable, where + " answered " + std::to_string(response.status) +
                                             " with something that is no JSON; is it a Onestep coordinator?");
  }
  return json;
}

// The code in "urn:onestep:problem:not_found" where there is a known one, else what fits the status.
ErrorCode problem_code(const nlohmann::json& document, int status) {
  const std::string prefix = "urn:onestep:problem:";
  const std::string type = document.value("type", "");
  if (type.starts_with(prefix)) {
    const std::string name = type.substr(prefix.size());
    const ErrorCode code = error_code_from_string(name);
    if (to_string(code) == name) return code;
  }
  switch (status) {
    case 401:
    case 403: return ErrorCode::kConflict;
    case 404: return ErrorCode::kNotFound;
    case 409: return ErrorCode::kConflict;
    case 422: return ErrorCode::kConfig;
    case 503: return ErrorCode::kUnavailable;
    case 507: return ErrorCode::kIo;
    default: return status >= 500 ? ErrorCode::kInternal : ErrorCode::kUsage;
  }
}

// Errors: kUnavailable for whatever the network says.
void run(const ServerUrl& url, asio::awaitable<void> work) {
  std::exception_ptr failure;
  asio::io_context io;
  asio::co_spawn(io, std::move(work), [&](std::exception_ptr error) { failure = error; });
  io.run();
  if (!failure) return;
  try {
    std::rethrow_exception(failure);
  } catch (const boost::system::system_error& error) {
    const bool refused = error.code() == asio::error::connection_refused;
    const bool tls = error.code().category() == asio::error::get_ssl_category();
    throw Error(ErrorCode::kUnavailable,
                to_string(url) + ": " + error.code().message() +
                    (refused ? "; is the coordinator running? Start one with 'onestep up', or name it with --url" : "") +
                    (tls ? "; name the authority that made its certificate with --ca FILE" : ""));
  }
}

}  // namespace

ServerUrl parse_server_url(const std::string& text) {
  const auto wrong = [&](const std::string& why) {
    return Error(ErrorCode::kUsage, "--url '" + text + "': " + why + "; expected http://HOST:PORT or https://HOST:PORT");
  };
  std::string rest = text;
  if (const std::size_t scheme = rest.find("://"); scheme != std::string::npos) {
    if (rest.substr(0, scheme) != "http" && rest.substr(0, scheme) != "https") {
      throw wrong("the scheme is '" + rest.substr(0, scheme) + "'");
    }
    rest = rest.substr(scheme + 3);
  }
  if (!rest.empty() && rest.back() == '/') rest.pop_back();
  if (rest.find_first_of("/?#@ ") != std::string::npos) throw wrong("more than a host and a port");
  const bool tls = text.starts_with("https:");
  ServerUrl url{tls, rest, tls ? "443" : "80"};
  const std::size_t bracket = rest.starts_with('[') ? rest.find(']') : std::string::npos;
  const std::size_t colon = rest.rfind(':');
  if (bracket != std::string::npos) {
    url.host = rest.substr(1, bracket - 1);
    if (bracket + 1 < rest.size()) {
      if (rest[bracket + 1] != ':') throw wrong("something other than a port after ']'");
      url.port = rest.substr(bracket + 2);
    }
  } else if (colon != std::string::npos) {
    if (rest.find(':') != colon) throw wrong("an IPv6 address stands in brackets");
    url.host = rest.substr(0, colon);
    url.port = rest.substr(colon + 1);
  }
  if (url.host.empty()) throw wrong("the host is empty");
  if (!all_digits(url.port) || url.port.size() > 5 || std::stoi(url.port) < 1 || std::stoi(url.port) > 65535) {
    throw wrong("the port is '" + url.port + "', not 1 to 65535");
  }
  return url;
}

std::string to_string(const ServerUrl& url) { return (url.tls ? "https://" : "http://") + host_header(url); }

Client::Client(ServerUrl url, Credentials credentials, std::chrono::milliseconds timeout)
    : url_(std::move(url)), credentials_(std::move(credentials)), timeout_(timeout) {
  if (url_.tls) tls_context(credentials_);
  if (!credentials_.token.empty() && !url_.tls && !is_this_machine(url_)) {
    throw Error(ErrorCode::kUsage, to_string(url_) + ": a token is not sent over a network in the clear; expected https://");
  }
}

ClientResponse Client::request(const std::string& method, const std::string& target,
                               const std::string& body, const std::map<std::string, std::string>& headers) const {
  http::request<http::string_body> request(http::string_to_verb(method), target, 11);
  request.set(http::field::host, host_header(url_));
  request.set(http::field::user_agent, std::string("onestep/") + build_version());
  request.set(http::field::accept, "application/json, text/plain, application/problem+json");
  request.set(http::field::connection, "close");
  if (!body.empty()) request.set(http::field::content_type, "application/json");
  if (!credentials_.token.empty()) request.set(http::field::authorization, "Bearer " + credentials_.token);
  for (const auto& [name, value] : headers) request.set(name, value);
  request.body() = body;
  request.prepare_payload();

  ClientResponse response;
  run(url_, exchange(url_, credentials_, timeout_, request, response));
  if (response.status >= 400) throw_problem(response, to_string(url_));
  return response;
}

nlohmann::json Client::get(const std::string& target) const {
  return parse_answer(request("GET", target), to_string(url_));
}

nlohmann::json Client::post(const std::string& target, const nlohmann::json& body) const {
  return parse_answer(request("POST", target, body.dump()), to_string(url_));
}

nlohmann::json Client::post(const std::string& target) const {
  return parse_answer(request("POST", target), to_string(url_));
}

void Client::stream(const std::string& target, const std::string& id,
                    const std::function<bool(const ServerEvent&)>& on_event) const {
  http::request<http::empty_body> request(http::verb::get, target, 11);
  request.set(http::field::host, host_header(url_));
  request.set(http::field::user_agent, std::string("onestep/") + build_version());
  request.set(http::field::accept, "text/event-stream, application/problem+json");
  if (!credentials_.token.empty()) request.set(http::field::authorization, "Bearer " + credentials_.token);
  if (!id.empty()) request.set("Last-Event-ID", id);
  ServerEventParser parser(id);
  bool going_on = true;
  const auto on_bytes = [&](std::string_view bytes) {
    parser.feed(bytes, [&](const ServerEvent& event) { going_on = going_on && on_event(event); });
    return going_on;
  };
  ClientResponse refusal;
  run(url_, read_stream(url_, credentials_, timeout_, request, on_bytes, refusal));
  if (refusal.status >= 400) throw_problem(refusal, to_string(url_));
}

void throw_problem(const ClientResponse& response, const std::string& where) {
  const nlohmann::json document = nlohmann::json::parse(response.body, nullptr, false);
  if (!document.is_object() || !document.contains("detail")) {
    throw Error(ErrorCode::kUnavailable, where + " answered status " + std::to_string(response.status) +
                                             " without a problem document; is it a Onestep coordinator?");
  }
  const std::string detail = document["detail"].is_string() ? document["detail"].get<std::string>()
                                                            : document["detail"].dump();
  const ErrorCode code = problem_code(document, response.status);
  std::vector<Violation> violations;
  if (document.contains("errors") && document["errors"].is_array()) {
    for (const nlohmann::json& error : document["errors"]) {
      if (!error.is_object()) continue;
      violations.push_back({error.value("pointer", ""), error.value("detail", "")});
    }
  }
  if (code == ErrorCode::kConfig && !violations.empty()) throw ConfigError("refused by the coordinator", violations);
  throw Error(code, detail);
}

}  // namespace onestep
