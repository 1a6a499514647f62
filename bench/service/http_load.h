// Requests, submissions and event streams against a server, and the plainest server there can be.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace onestep {

struct Server {
  std::string host;
  std::string port;
};
Server server_of(const std::string& text);  // "127.0.0.1:8080"

// Answers every request 200 with `bytes` bytes, on one thread, until it is killed. Prints "listening on HOST:PORT".
void serve_hello(std::size_t bytes);

// `rate` requests a second of the targets in turns for `seconds`, whether or not earlier ones have been answered, over
// `connections` that stay open. A latency counts from when the request was due: {count, p50_ms, p99_ms, max_ms, errors}.
nlohmann::json load_requests(const Server& server, const std::vector<std::string>& targets, double rate, double seconds,
                             int connections);

// Posts the pipeline `count` times, one after the other, and between two posts writes and syncs a file of the same bytes in
// `folder`: {submit: {...}, write_and_fsync: {...}}.
nlohmann::json load_submits(const Server& server, const std::string& target, const std::string& body, int count,
                            const std::string& folder);

// `readers` of the event stream at `target`, from after the event `after` ("0": all of them), for `seconds`: {readers, events: {least, most}, gaps, out_of_order, lost_connections}.
// An id that a reader has seen after a larger one, or a number that it lacks between its first and last, is counted.
nlohmann::json read_events(const Server& server, const std::string& target, const std::string& after, int readers, double seconds);

}  // namespace onestep
