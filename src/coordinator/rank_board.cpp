#include "coordinator/rank_board.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace onestep {
namespace {

std::string decimal(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f", value);
  return text;
}

// Of the others than `rank`: one slow rank of two must not be measured against itself.
std::optional<double> median_step_of_others(const std::vector<WorkerRecord>& ranks, int rank) {
  std::vector<double> steps;
  for (const WorkerRecord& other : ranks) {
    if (other.rank != rank && other.seconds_a_step) steps.push_back(*other.seconds_a_step);
  }
  if (steps.empty()) return std::nullopt;
  const auto middle = steps.begin() + static_cast<std::ptrdiff_t>(steps.size() / 2);
  std::nth_element(steps.begin(), middle, steps.end());
  return *middle;
}

std::string trouble_of(const WorkerRecord& rank, const std::vector<WorkerRecord>& ranks) {
  if (rank.seconds_silent >= kSilent_s) return "silent for " + decimal(rank.seconds_silent) + " s";
  if (rank.iterations_behind.value_or(0) >= kBehind) {
    return std::to_string(*rank.iterations_behind) + " iterations behind";
  }
  const std::optional<double> median = median_step_of_others(ranks, rank.rank);
  if (rank.seconds_a_step && median && *median > 0 && *rank.seconds_a_step >= kSlow * *median) {
    return decimal(*rank.seconds_a_step / *median) + " times the others' time a step";
  }
  return "";
}

}  // namespace

void WorkerRecord::note_step(std::int64_t done, double busy) {
  if (!std::isfinite(busy)) return;
  const std::int64_t steps = done - counted_iteration;
  if (steps > 0 && busy >= counted_busy_s && counted_iteration > 0) {
    seconds_a_step = (busy - counted_busy_s) / static_cast<double>(steps);
  }
  if (steps == 0) return;  // a heartbeat within a step
  counted_iteration = done;
  counted_busy_s = busy;
}

void RankBoard::joined(const WorkerRecord& rank) {
  std::map<int, WorkerRecord>& ranks = jobs_[rank.job];
  // A newer attempt has taken over, possibly on fewer ranks.
  std::erase_if(ranks, [&](const auto& entry) { return entry.second.attempt != rank.attempt; });
  ranks[rank.rank] = rank;
}

void RankBoard::heard(const std::string& job, int attempt, int rank, const nlohmann::json& body,
                      double now) {
  const auto ranks = jobs_.find(job);
  if (ranks == jobs_.end()) return;
  const auto found = ranks->second.find(rank);
  if (found == ranks->second.end() || found->second.attempt != attempt) return;
  found->second.last_heard = now;
  if (!body.is_object()) return;
  const auto iteration = body.find("iteration");
  if (iteration == body.end() || !iteration->is_number_integer()) return;
  const auto done = iteration->get<std::int64_t>();
  const auto busy = body.find("busy_s");
  if (busy != body.end() && busy->is_number()) found->second.note_step(done, busy->get<double>());
  found->second.iteration = done;
}

void RankBoard::forget(const std::string& job) { jobs_.erase(job); }

std::vector<WorkerRecord> RankBoard::ranks(const std::string& job, double now) const {
  const auto found = jobs_.find(job);
  if (found == jobs_.end()) return {};
  std::vector<WorkerRecord> ranks;
  for (const auto& [number, rank] : found->second) ranks.push_back(rank);
  return with_trouble(std::move(ranks), now);
}

std::vector<WorkerRecord> with_trouble(std::vector<WorkerRecord> ranks, double now) {
  std::int64_t furthest = 0;
  for (const WorkerRecord& rank : ranks) furthest = std::max(furthest, rank.iteration.value_or(0));
  for (WorkerRecord& rank : ranks) {
    rank.seconds_silent = std::max(0.0, now - rank.last_heard);
    if (rank.iteration) rank.iterations_behind = furthest - *rank.iteration;
  }
  for (WorkerRecord& rank : ranks) rank.trouble = trouble_of(rank, ranks);
  return ranks;
}

}  // namespace onestep
