#include "service/fill.h"

#include <array>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>

#include "common/error.h"
#include "common/job_spec.h"
#include "coordinator/store.h"

namespace onestep {
namespace {

constexpr std::int64_t kJobsOfAPipeline = 5;
constexpr std::int64_t kPointsOfACurve = 10'000;
constexpr std::int64_t kCurvesOfAJob = 10;
constexpr std::int64_t kBatch = 1000;  // pipelines a transaction
constexpr double kLongAgo = 1.7e9;

// Field 22 of /proc/PID/stat.
std::int64_t start_time_of(std::int64_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  const std::size_t name_end = text.rfind(')');
  if (name_end == std::string::npos) throw Error(ErrorCode::kNotFound, "no process " + std::to_string(pid));
  std::istringstream fields(text.substr(name_end + 1));
  std::string field;
  for (int number = 3; number <= 21; ++number) fields >> field;
  std::int64_t ticks = 0;
  fields >> ticks;
  return ticks;
}

// What a small job of the kind is, with all its defaults resolved: as long as a real one.
nlohmann::json spec_of(const std::string& kind, const std::string& data) {
  static const nlohmann::json dataset = {{"path", "/data/digits.h5"}, {"resolution", 14}};
  nlohmann::json spec = {{"name", kind}, {"kind", kind}};
  if (kind == "train_detector") spec["dataset"] = dataset;
  if (kind == "train_teacher") spec["dataset"] = dataset;
  if (kind == "generate_pairs") spec["teacher"] = "@train_teacher";
  if (kind == "distill") {
    spec["teacher"] = "@train_teacher";
    spec["pairs"] = "@generate_pairs";
  }
  if (kind == "export") spec["model"] = "@distill";
  return to_json(parse_job_spec(spec, data, "bench"));
}

JobRecord finished(std::int64_t number, const std::string& kind, const std::string& pipeline, const nlohmann::json& spec) {
  JobRecord job;
  job.number = number;
  job.id = kind + "-" + std::to_string(number);
  job.name = kind;
  job.kind = kind;
  job.pipeline = pipeline;
  job.spec = spec;
  job.state = JobState::kSucceeded;
  job.reason = "attempt 1 ended";
  job.attempts = 1;
  job.created = job.started = kLongAgo;
  job.ended = kLongAgo + 60;
  job.digest = std::string(64, 'a');
  job.outcome = {{"state", "succeeded"}, {"digest", job.digest}};
  return job;
}

AttemptRecord attempt_of(const JobRecord& job, const std::string& state) {
  AttemptRecord attempt;
  attempt.job = job.id;
  attempt.number = 1;
  attempt.state = state;
  attempt.started = kLongAgo;
  return attempt;
}

void fill_jobs(Store& store, const FillOptions& options) {
  static constexpr std::array<const char*, kJobsOfAPipeline> kKinds = {"train_detector", "train_teacher", "generate_pairs",
                                                                       "distill", "export"};
  std::array<nlohmann::json, kJobsOfAPipeline> specs;
  for (std::size_t i = 0; i < kKinds.size(); ++i) specs[i] = spec_of(kKinds[i], options.data);
  for (std::int64_t done = 0; done < options.jobs;) {
    Store::Transaction transaction = store.begin();
    for (std::int64_t i = 0; i < kBatch && done < options.jobs; ++i) {
      const std::int64_t pipeline = store.next_pipeline_number();
      const std::string id = "bench-p" + std::to_string(pipeline);
      store.insert_pipeline({pipeline, id, "bench", kLongAgo, {}});
      std::string before;
      for (std::size_t k = 0; k < kKinds.size(); ++k, ++done) {
        JobRecord job = finished(store.next_job_number(), kKinds[k], id, specs[k]);
        if (!before.empty()) job.after = {before};
        before = job.id;
        store.insert_job(job);
        AttemptRecord attempt = attempt_of(job, "succeeded");
        attempt.ended = job.ended;
        store.insert_attempt(attempt);
      }
    }
    transaction.commit();
  }
}

void fill_curve(Store& store, const std::string& job, const std::string& key, std::int64_t points) {
  std::vector<MetricPoint> batch;
  for (std::int64_t i = 0; i < points; ++i) {
    batch.push_back({key, "distill", i, i * 128, 1, 0, std::sin(static_cast<double>(i) / 1e3)});
    if (batch.size() < 100'000 && i + 1 < points) continue;
    Store::Transaction transaction = store.begin();
    store.insert_metrics(job, batch);
    transaction.commit();
    batch.clear();
  }
}

void fill_running(Store& store, const FillOptions& options) {
  Store::Transaction transaction = store.begin();
  const std::int64_t pipeline = store.next_pipeline_number();
  const std::string id = "running-p" + std::to_string(pipeline);
  store.insert_pipeline({pipeline, id, "running", kLongAgo, {}});
  nlohmann::json spec = spec_of("generate_pairs", options.data);
  spec["teacher"] = options.data + "/teacher";
  spec["count"] = kShards;
  spec["rows_per_shard"] = 1;
  spec["batch"] = 1;
  spec["ranks"] = options.ranks;
  JobRecord job = finished(store.next_job_number(), "generate_pairs", id, spec);
  job.id = kRunningJob;
  job.state = JobState::kRunning;
  job.ranks = options.ranks;
  job.ended = 0;
  job.digest.clear();
  job.outcome = nullptr;
  store.insert_job(job);
  AttemptRecord attempt = attempt_of(job, "running");
  attempt.pid = options.pid;
  attempt.start_time = start_time_of(options.pid);
  store.insert_attempt(attempt);
  transaction.commit();
}

}  // namespace

void fill(const FillOptions& options) {
  std::filesystem::create_directories(options.data + "/jobs/" + kRunningJob);
  Store store(options.data + "/coordinator.sqlite");
  fill_jobs(store, options);
  const std::int64_t curves = options.points / kPointsOfACurve;
  for (std::int64_t curve = 0; curve < curves; ++curve) {
    // Jobs count from 1; the second of a pipeline trains.
    const std::int64_t number = (curve / kCurvesOfAJob) * kJobsOfAPipeline + 2;
    fill_curve(store, "train_teacher-" + std::to_string(number), "metric_" + std::to_string(curve % kCurvesOfAJob),
               kPointsOfACurve);
  }
  if (options.curve > 0) fill_curve(store, "train_teacher-2", "long", options.curve);
  fill_running(store, options);
}

}  // namespace onestep
