// What ranks say to a coordinator: fenced by the attempt, stored before it is acknowledged.
#include "coordinator/coordinator.h"

#include "common/durable_file.h"
#include "coordinator/checkpoint_registry.h"
#include "coordinator/job_view.h"
#include "coordinator/leases.h"
#include "coordinator/message_fields.h"

#include <algorithm>
#include <cmath>
#include <tuple>

namespace onestep {
namespace {

using nlohmann::json;

constexpr int kMaxRanks = 1 << 16;

std::string ranks_text(int ranks) {
  return std::to_string(ranks) + (ranks == 1 ? " rank" : " ranks");
}

Refusal refusal(ErrorCode code, const std::string& reason) { return {code, reason}; }

}  // namespace

Hello hello_from_json(const json& body) {
  Hello hello;
  hello.job = text_field(body, "hello", "job");
  hello.attempt = static_cast<int>(integer_field(body, "hello", "attempt", 1, INT32_MAX));
  hello.ranks = static_cast<int>(integer_field(body, "hello", "ranks", 1, kMaxRanks));
  hello.rank = static_cast<int>(integer_field(body, "hello", "rank", 0, hello.ranks - 1));
  hello.pid = integer_field(body, "hello", "pid", 0, INT64_MAX);
  hello.host = text_field(body, "hello", "host");
  hello.commit = text_field(body, "hello", "commit");
  if (body.contains("token")) hello.token = text_field(body, "hello", "token");
  return hello;
}

void Coordinator::send_to_all(const JobRecord& job, const Message& command) {
  if (sender_) sender_({job.id, job.attempts, -1}, command);
}

std::optional<Refusal> Coordinator::fence(const std::string& job_id, int attempt, int rank,
                                          std::optional<JobRecord>& job) {
  job = store_.job_summary(job_id);
  if (!job) return refusal(ErrorCode::kNotFound, "unknown job \"" + job_id + "\"");
  if (attempt != job->attempts) {
    return refusal(ErrorCode::kConflict, "stale attempt: expected " +
                                             std::to_string(job->attempts) + " of " + job_id +
                                             ", found " + std::to_string(attempt));
  }
  if (!is_active(job->state)) {
    return refusal(ErrorCode::kConflict, attempt_name(attempt) + " of " + job_id +
                                             " has ended: the job is " + to_string(job->state));
  }
  if (rank < 0 || rank >= job->ranks) {
    return refusal(ErrorCode::kMismatch, "rank of " + job_id + ": expected 0 to " +
                                             std::to_string(job->ranks - 1) + ", found " +
                                             std::to_string(rank));
  }
  return std::nullopt;
}

HelloAnswer Coordinator::hello(const Hello& hello) {
  std::optional<JobRecord> job;
  HelloAnswer answer;
  answer.refusal = fence(hello.job, hello.attempt, hello.rank, job);
  if (answer.refusal) return answer;
  // An attempt that an older coordinator launched has none.
  const std::string token = options_.worker_tokens ? store_.attempt_token(hello.job, hello.attempt) : "";
  if (!token.empty() && !equal_in_constant_time(sha256(hello.token), token)) {
    answer.refusal = refusal(ErrorCode::kMismatch, "hello of " + hello.job + ": token: expected that of " +
                                                       attempt_name(hello.attempt) + ", found " +
                                                       (hello.token.empty() ? "none" : "another"));
    return answer;
  }
  if (hello.ranks != job->ranks) {
    answer.refusal = refusal(ErrorCode::kMismatch, "ranks of " + hello.job + ": expected " +
                                                       std::to_string(job->ranks) + ", found " +
                                                       std::to_string(hello.ranks));
    return answer;
  }
  rank_board_.joined({.job = hello.job,
                      .attempt = hello.attempt,
                      .rank = hello.rank,
                      .host = hello.host,
                      .pid = hello.pid,
                      .connected = options_.clock(),
                      .last_heard = options_.clock()});
  if (hello.rank == 0 && job->state == JobState::kStarting) {
    Store::Transaction transaction = store_.begin();
    AttemptRecord attempt = store_.attempt(job->id, job->attempts).value();
    attempt.state = "running";
    store_.update_attempt(attempt);
    apply(*job, JobEvent::kConnected,
          attempt_name(job->attempts) + " runs on " + ranks_text(job->ranks));
    transaction.commit();
  }
  if (job->state == JobState::kStopping) {
    answer.commands.push_back({.type = MessageType::kStop, .body = {{"reason", job->reason}}});
  }
  return answer;
}

std::vector<MessageAnswer> Coordinator::on_messages(const std::vector<ReceivedMessage>& messages) {
  std::vector<MessageAnswer> answers(messages.size());
  std::optional<Store::Transaction> transaction;
  std::vector<std::size_t> facts;  // of the transaction
  const auto commit = [&] {
    if (!transaction) return;
    try {
      transaction->commit();
      for (const std::size_t i : facts) answers[i].acknowledge = messages[i].message.sequence;
    } catch (const Error& error) {
      for (const std::size_t i : facts) answers[i].refusal = refusal(error.code(), error.what());
    }
    transaction.reset();
    facts.clear();
  };
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const auto& [from, message] = messages[i];
    try {
      if (must_be_acknowledged(message.type)) {
        if (!transaction) transaction.emplace(&store_);
      } else if (message.type == MessageType::kLeaseRequest) {
        commit();  // has a transaction of its own
      }
      answers[i] = take_message(from, message);
      if (must_be_acknowledged(message.type) && !answers[i].refusal) facts.push_back(i);
    } catch (const Error& error) {
      answers[i].refusal = refusal(error.code(), error.what());
    } catch (const json::exception& error) {
      answers[i].refusal =
          refusal(ErrorCode::kCorrupt, std::string("message body: ") + error.what());
    } catch (const std::exception& error) {
      answers[i].refusal = refusal(ErrorCode::kInternal, error.what());
    }
  }
  commit();
  for (const MessageAnswer& answer : answers) ++(answer.refusal ? messages_refused_ : messages_taken_);
  return answers;
}

MessageAnswer Coordinator::take_message(const RankId& from, const Message& message) {
  MessageAnswer answer;
  std::optional<JobRecord> job;
  answer.refusal = fence(from.job, from.attempt, from.rank, job);
  if (answer.refusal) return answer;
  rank_board_.heard(from.job, from.attempt, from.rank, message.body, options_.clock());
  switch (message.type) {
    case MessageType::kHeartbeat:
      break;
    case MessageType::kProgress:
      take_progress(from, message.body);
      break;
    case MessageType::kLeaseRequest:
      answer.replies.push_back({.type = MessageType::kShardPlan,
                                .body = shard_plan_body(grant(find_job(from.job), from))});
      break;
    case MessageType::kCheckpointCommitted:
    case MessageType::kShardDone:
    case MessageType::kFinalState:
      store_fact(from, message);
      break;
    default:
      answer.refusal = refusal(ErrorCode::kCorrupt,
                               "a worker can't send a message of type " +
                                   std::to_string(static_cast<int>(message.type)) + " here");
  }
  return answer;
}

// Inside the caller's transaction, which nothing is left in when it throws.
void Coordinator::store_fact(const RankId& from, const Message& message) {
  const JobRecord job = find_job(from.job);
  const json& body = message.body;
  if (message.sequence == 0) {
    throw Error(ErrorCode::kCorrupt,
                "a message to be acknowledged: expected a sequence >= 1, found 0");
  }
  // Left by an earlier attempt and delivered by this one: it keeps the number it was written under.
  const std::string what = "message to be acknowledged";
  const int attempt = static_cast<int>(integer_field(body, what, "attempt", 1, job.attempts));
  const bool is_left = body.contains("origin_sequence");
  const std::int64_t sequence = is_left ? integer_field(body, what, "origin_sequence", 1, INT64_MAX)
                                        : static_cast<std::int64_t>(message.sequence);
  const int rank = is_left
                       ? static_cast<int>(integer_field(body, what, "origin_rank", 0, kMaxRanks))
                       : from.rank;
  const int origin =
      is_left ? static_cast<int>(integer_field(body, what, "origin_attempt", 1, job.attempts))
              : from.attempt;

  Store::Savepoint savepoint(&store_);
  if (store_.remember_message(job.id, origin, rank, static_cast<std::uint64_t>(sequence))) {
    if (message.type == MessageType::kCheckpointCommitted) {
      checkpoint_committed(
          job, committed_checkpoint(job.id, run_folder(job.id), body, options_.clock()));
    } else if (message.type == MessageType::kShardDone) {
      const JobSpec spec = resolved_spec(job);
      const auto* options = std::get_if<GeneratePairsSpec>(&spec.options);
      if (options == nullptr) {
        throw Error(ErrorCode::kMismatch, "shard_done message: job " + job.id + " is of kind " +
                                              job.kind + "; expected generate_pairs");
      }
      store_.put_lease(job.id, finished_shard(*options, job.ranks, attempt, body));
    } else {
      take_final_state(job, body);
    }
  }
  savepoint.release();
}

void Coordinator::take_final_state(const JobRecord& job, const json& body) {
  const auto number =
      static_cast<int>(integer_field(body, "final_state", "attempt", 1, job.attempts));
  const auto outcome = body.find("outcome");
  if (outcome == body.end()) {
    throw Error(ErrorCode::kCorrupt,
                "final_state message: field outcome; expected one, found nothing");
  }
  const JobOutcome told = job_outcome_from_json(*outcome, "final_state message of " + job.id);
  std::optional<AttemptRecord> attempt = store_.attempt(job.id, number);
  if (!attempt) {
    throw Error(ErrorCode::kNotFound, "final_state message: " + attempt_name(number) + " of " +
                                          job.id + "; expected a known attempt, found none");
  }
  // An earlier attempt's end is a fact about that attempt; what the job is now was decided without
  // it.
  attempt->outcome = to_json(told);
  store_.update_attempt(*attempt);
  if (number == job.attempts) final_since_[job.id] = options_.clock();
}

void Coordinator::take_progress(const RankId& from, const json& body) {
  const std::int64_t iteration = integer_field(body, "progress", "iteration", 0, INT64_MAX);
  const std::int64_t images = integer_field(body, "progress", "images", 0, INT64_MAX);
  const std::string stage = text_field(body, "progress", "stage");
  const auto metrics = body.find("metrics");
  if (metrics != body.end() && !metrics->is_object()) {
    throw Error(ErrorCode::kCorrupt, "progress message: field metrics; expected an object, found " +
                                         std::string(metrics->type_name()));
  }
  (void)body.dump();  // a text that is no UTF-8 is refused here, not when it is written down
  const auto add = [&](const std::string& key, const json& value) {
    // JSON and SQL know no NaN; a metric that is none leaves a gap in its curve.
    if (!value.is_number() || !std::isfinite(value.get<double>())) return;
    pending_metrics_.emplace_back(from.job, MetricPoint{key, stage, iteration, images, from.attempt,
                                                        from.rank, value.get<double>()});
  };
  if (metrics != body.end()) {
    for (const auto& [key, value] : metrics->items()) add(key, value);
  }
  if (const auto speed = body.find("images_per_second"); speed != body.end()) {
    add("images_per_second", *speed);
  }
  if (is_training_kind(find_job(from.job).kind)) {
    PendingReport& pending = pending_reports_.emplace_back();
    pending = {from.job, from.attempt, {stage, iteration, images, 0, {}}};
    if (body.contains("images_total")) {
      pending.report.images_total = integer_field(body, "progress", "images_total", 0, INT64_MAX);
    }
    if (metrics != body.end()) {
      for (const auto& [key, value] : metrics->items()) {
        if (value.is_number()) pending.report.values[key] = value.get<double>();
      }
    }
  }
  latest_progress_[from.job] = body;
  LiveProgress& live = live_progress_[from.job];
  if (live.job.empty()) live = {from.job, find_job(from.job).pipeline, 0, nullptr};
  // The first report after a start of this process says where the job is, not what it has just done.
  if (live.body.is_object()) images_seen_ += static_cast<double>(std::max<std::int64_t>(0, images - live.body.value("images", std::int64_t{0})));
  live.version = ++progress_version_;
  live.body = body;
}

std::vector<LeaseRecord> Coordinator::grant(const JobRecord& job, const RankId& to) {
  const JobSpec spec = resolved_spec(job);
  const auto* options = std::get_if<GeneratePairsSpec>(&spec.options);
  if (options == nullptr) {
    throw Error(ErrorCode::kMismatch, "lease request: job " + job.id + " is of kind " + job.kind +
                                          "; expected generate_pairs");
  }
  const std::string run = run_folder(job.id);
  const std::vector<LeaseRecord> leases =
      grant_leases(*options, job.ranks, to.rank, to.attempt, store_.leases(job.id),
                   [&](const std::string& name) { return file_exists(run + "/" + name); });
  Store::Transaction transaction = store_.begin();
  for (const LeaseRecord& lease : leases) store_.put_lease(job.id, lease);
  transaction.commit();
  return leases;
}

// Into the curves, and one event for each report.
void Coordinator::store_metrics() {
  std::map<std::string, std::vector<MetricPoint>> by_job;
  for (std::size_t i = 0; i < pending_metrics_.size();) {
    const auto& [job, first] = pending_metrics_[i];
    json values = json::object();
    for (; i < pending_metrics_.size(); ++i) {
      const auto& [owner, point] = pending_metrics_[i];
      if (owner != job || point.stage != first.stage || point.iteration != first.iteration ||
          point.attempt != first.attempt || point.rank != first.rank || values.contains(point.key)) {
        break;
      }
      values[point.key] = point.value;
      by_job[job].push_back(point);
    }
    emit(job, "metric", metric_event(first, values));
  }
  for (auto& [job, points] : by_job) {
    std::stable_sort(points.begin(), points.end(), [](const MetricPoint& a, const MetricPoint& b) {
      return std::tie(a.key, a.stage) < std::tie(b.key, b.stage);
    });
    store_.insert_metrics(job, points);
  }
}

void Coordinator::flush_progress() {
  last_flush_ = options_.clock();
  if (pending_metrics_.empty() && latest_progress_.empty()) return;
  Store::Transaction transaction = store_.begin();
  store_metrics();
  judge_reports();
  for (const auto& [id, progress] : latest_progress_) {
    JobRecord job = store_.job(id).value();
    job.progress = progress;
    store_.update_job(job);
  }
  transaction.commit();
  pending_metrics_.clear();
  pending_reports_.clear();
  latest_progress_.clear();
}

}  // namespace onestep
