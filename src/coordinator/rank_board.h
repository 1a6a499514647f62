// What is known of the ranks that run: where they are, when they were last heard, who lags behind.
#pragma once

#include <nlohmann/json.hpp>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace onestep {

// A rank of a running attempt as its connection shows it.
struct WorkerRecord {
  std::string job = {};
  int attempt = 0;
  int rank = 0;
  std::string host = {};
  std::int64_t pid = 0;
  double connected = 0;                           // Unix seconds
  double last_heard = 0;                          // Unix seconds
  double seconds_silent = 0;                      // up to now
  std::optional<std::int64_t> iteration = {};     // done; nullopt: it has told none
  std::optional<std::int64_t> iterations_behind = {};  // the job's furthest rank
  std::optional<double> seconds_a_step = {};      // its own work, without waiting for others
  std::optional<double> slow_by = {};             // seconds_a_step over the others' median, when kSlow or more
  std::string trouble = {};                       // for people; "": none
  std::int64_t counted_iteration = 0;             // those that busy_s was told for, and
  double counted_busy_s = 0;                      // its own work until then

  void note_step(std::int64_t done, double busy_s);
};

// In memory only: it is known anew a second after a restart. One thread.
class RankBoard {
 public:
  void joined(const WorkerRecord& rank);
  // Anything that a rank says; what its body tells of iteration and busy_s is kept.
  void heard(const std::string& job, int attempt, int rank, const nlohmann::json& body, double now);
  void forget(const std::string& job);
  // By rank, with their trouble.
  [[nodiscard]] std::vector<WorkerRecord> ranks(const std::string& job, double now) const;

 private:
  std::map<std::string, std::map<int, WorkerRecord>> jobs_;
};

// Pure. A rank that was not heard for kSilent_s, that is kBehind iterations or more behind the first,
// or whose step takes kSlow times the median or more, is in trouble.
std::vector<WorkerRecord> with_trouble(std::vector<WorkerRecord> ranks, double now);

constexpr double kSilent_s = 5.0;  // five heartbeats
constexpr std::int64_t kBehind = 2;
constexpr double kSlow = 1.5;

}  // namespace onestep
