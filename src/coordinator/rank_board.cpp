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

std::vector<double> sorted_steps(const std::vector<WorkerRecord>& ranks) {
  std::vector<double> steps;
  for (const WorkerRecord& rank : ranks) {
    if (rank.seconds_a_step) steps.push_back(*rank.seconds_a_step);
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

// Against the median of the others' steps: one slow rank of two must not be measured against itself.
std::optional<double> slow_by(const WorkerRecord& rank, const std::vector<double>& sorted) {
  if (!rank.seconds_a_step || sorted.size() < 2) return std::nullopt;
  const auto own = std::lower_bound(sorted.begin(), sorted.end(), *rank.seconds_a_step) - sorted.begin();
  const auto middle = static_cast<std::ptrdiff_t>((sorted.size() - 1) / 2);
  const double median = sorted[static_cast<std::size_t>(middle < own ? middle : middle + 1)];
  if (median <= 0 || *rank.seconds_a_step < kSlow * median) return std::nullopt;
  return *rank.seconds_a_step / median;
}

std::string trouble_of(const WorkerRecord& rank) {
  if (rank.seconds_silent >= kSilent_s) return "silent for " + decimal(rank.seconds_silent) + " s";
  if (rank.iterations_behind.value_or(0) >= kBehind) {
    return std::to_string(*rank.iterations_behind) + " iterations behind";
  }
  if (rank.slow_by) return decimal(*rank.slow_by) + " times the others' time a step";
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
  const std::vector<double> steps = sorted_steps(ranks);
  for (WorkerRecord& rank : ranks) {
    rank.slow_by = slow_by(rank, steps);
    rank.trouble = trouble_of(rank);
  }
  return ranks;
}

}  // namespace onestep
