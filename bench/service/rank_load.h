// Ranks of one job, simulated: each its own connection, as a worker opens it.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace onestep {

struct RankLoad {
  std::string telemetry;      // "127.0.0.1:40123"
  std::string job;
  int ranks = 256;            // all of the job's, or the listener refuses them
  double messages_per_second = 10;  // of each rank
  double seconds = 20;
  int fact_every = 10;        // one message in so many is a fact (a shard done) that must be acknowledged; the others are progress of
                              // rank 0 and heartbeats of the others
  std::int64_t first_shard = 0;  // facts are of this shard and the next ones, each once
  std::int64_t first_iteration = 0;  // of rank 0's reports
};

// {messages, facts, acknowledged, refused, acknowledge: latencies, send: latencies of handing a message to the socket, late: messages
// more than a second behind their time}
nlohmann::json load_ranks(const RankLoad& load);

}  // namespace onestep
