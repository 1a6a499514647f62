#include "coordinator/api.h"

#include "coordinator/api_call.h"

#include <algorithm>
#include <cctype>
#include <chrono>
#include <filesystem>
#include <optional>
#include <set>

#include "common/build_info.h"
#include "common/config.h"
#include "common/hash.h"
#include "common/log.h"
#include "common/pipeline.h"
#include "coordinator/job_view.h"
#include "coordinator/problem.h"
#include "coordinator/request_query.h"
#include "coordinator/samples.h"
#include "coordinator/web_files.h"

namespace onestep {
namespace {

using api::items;
using api::json_response;
using api::page;
using Json = nlohmann::ordered_json;

bool is_idempotency_key(const std::string& key) {
  const auto allowed = [](unsigned char c) { return std::isalnum(c) || c == '_' || c == '.' || c == ':' || c == '-'; };
  return !key.empty() && key.size() <= 128 && std::all_of(key.begin(), key.end(), allowed);
}

// "/spec", or "/spec/jobs/2" of a pipeline's job.
std::string spec_pointer(const nlohmann::json& spec, const std::string& name) {
  if (!spec.contains("jobs")) return "/spec";
  for (std::size_t i = 0; i < spec["jobs"].size(); ++i) {
    if (spec["jobs"][i].value("name", "") == name) return "/spec/jobs/" + std::to_string(i);
  }
  return "/spec/jobs";
}

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts(1);
  for (const char c : text) {
    if (c == separator) {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  return parts;
}

bool is_json_type(const std::string& content_type) {
  std::string type = content_type.substr(0, content_type.find(';'));
  while (!type.empty() && type.back() == ' ') type.pop_back();
  std::transform(type.begin(), type.end(), type.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  return type == "application/json";
}

HttpResponse web_response(const HttpRequest& request, const WebFile& file) {
  const std::string tag = "\"" + sha256(file.bytes).substr(0, 32) + "\"";
  HttpResponse response;
  response.content_type = file.content_type;
  response.headers = {{"ETag", tag}, {"Cache-Control", "no-cache"}};
  if (header_field(request, "if-none-match") == tag) {
    response.status = 304;
  } else {
    response.body = std::string(file.bytes);
  }
  response.headers["Content-Security-Policy"] = content_security_policy();
  response.headers["Referrer-Policy"] = "no-referrer";
  return response;
}

}  // namespace

const std::map<std::string, Api::Handler>& Api::handlers() {
  static const std::map<std::string, Handler> table = {
      {"submitJobs", &Api::submit},
      {"listJobs", &Api::list_jobs},
      {"showJob", &Api::show_job},
      {"showJobSpec", &Api::show_spec},
      {"showLogs", &Api::show_logs},
      {"showMetrics", &Api::show_metrics},
      {"listCheckpoints", &Api::list_checkpoints},
      {"showCheckpoint", &Api::show_checkpoint},
      {"downloadCheckpointFile", &Api::download_checkpoint_file},
      {"showExport", &Api::show_export},
      {"downloadExportFile", &Api::download_export_file},
      {"listShards", &Api::list_shards},
      {"listWorkers", &Api::list_job_workers},
      {"listSamples", &Api::list_samples},
      {"showSample", &Api::show_sample},
      {"jobEvents", &Api::job_events},
      {"cancelJob", &Api::cancel},
      {"resumeJob", &Api::resume},
      {"checkpointJob", &Api::checkpoint_now},
      {"submitPipeline", &Api::submit},
      {"listPipelines", &Api::list_pipelines},
      {"showPipeline", &Api::show_pipeline},
      {"pipelineEvents", &Api::pipeline_events},
      {"allEvents", &Api::all_events},
      {"showTensorboard", &Api::tensorboard},
      {"listTokens", &Api::list_tokens},
      {"addToken", &Api::add_token},
      {"revokeToken", &Api::revoke_token},
      {"openapi", &Api::openapi},
      {"serviceMetrics", &Api::service_metrics},
      {"health", &Api::health},
      {"ready", &Api::ready}};
  return table;
}

HttpResponse Api::handle(const HttpRequest& request) {
  const auto start = std::chrono::steady_clock::now();
  std::string route = "none";
  HttpResponse response = answer(request, route);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  metrics_.count_request(request.method, route, response.status, took.count());
  return response;
}

HttpResponse Api::answer(const HttpRequest& request, std::string& route) {
  try {
    if (std::optional<HttpResponse> refusal = refuse_foreign(request, options_.access)) return *refusal;
    return dispatch(request, route);
  } catch (const Error& error) {
    if (http_status(error.code()) >= 500)
      log_error("HTTP: " + request.target + ": " + error.what());
    return problem(error, request.target);
  } catch (const std::exception& error) {
    log_error("HTTP: " + request.method + " " + request.target + ": " + error.what());
    return problem(500, "internal", error.what(), request.target);
  }
}

HttpResponse Api::dispatch(const HttpRequest& request, std::string& met) {
  const std::size_t question = request.target.find('?');
  const std::string path = request.target.substr(0, question);
  const std::string method = request.method == "HEAD" ? "GET" : request.method;
  if (const WebFile* file = web_file(path); file != nullptr && method == "GET") {
    met = "web";
    return web_response(request, *file);
  }
  // Whoever is nobody does not even hear which paths there are.
  const Admission admission = admit(request, options_.access, [this](const std::string& token) {
    return coordinator_.judge_token(token);
  });
  const bool open = path == "/healthz" || path == "/readyz";
  if (admission.refusal && !open) return *admission.refusal;
  std::string allowed;
  for (const Operation& operation : operations()) {
    const std::optional<std::vector<std::string>> segments = match_path(operation.path, path);
    if (!segments) continue;
    met = operation.path;
    if (operation.method == method) return run(operation, request, admission.caller, *segments);
    allowed += (allowed.empty() ? "" : ", ") + operation.method;
    if (operation.method == "GET") allowed += ", HEAD";
  }
  if (allowed.empty()) return problem(404, "not_found", "no such path: " + path, request.target);
  HttpResponse response = problem(
      405, "usage", path + ": expected " + allowed + ", found " + request.method, request.target);
  response.headers["Allow"] = allowed;
  return response;
}

HttpResponse Api::run(const Operation& operation, const HttpRequest& request, const Caller& caller,
                      const std::vector<std::string>& segments) {
  if (operation.role) {
    if (std::optional<HttpResponse> refusal = refuse_role(request, caller, *operation.role)) return *refusal;
  }
  const std::size_t question = request.target.find('?');
  Call call{request, operation, caller, segments,
            RequestQuery(question == std::string::npos ? "" : request.target.substr(question + 1))};
  check_query(operation, call.query);
  if (!operation.body.empty() && !is_json_type(header_field(request, "content-type"))) {
    return problem(415, "usage", "Content-Type: expected application/json, found \"" + header_field(request, "content-type") + "\"",
                   request.target);
  }
  return (this->*handlers().at(operation.id))(call);
}

// {"spec": ..., "base": "/abs"}; violations of the spec get pointers into this document.
Pipeline Api::parse_submission(const nlohmann::json& body) const {
  ConfigReader reader(body, "");
  const std::string base = reader.required_text("base");
  if (reader.violations().empty() && (!base.starts_with('/') || base.find('\0') != std::string::npos)) {
    reader.violation("base", "expected an absolute folder, found \"" + base + "\"");
  }
  reader.know("spec");  // what is in it is for parse_pipeline
  if (body.is_object() && !body.contains("spec")) {
    reader.violation("spec", "expected a pipeline or a job spec, found nothing");
  }
  const std::string folder = std::filesystem::path(base).lexically_normal().string();
  if (reader.violations().empty()) {
    if (const std::string why = options_.roots.refuse(folder); !why.empty()) reader.violation("base", why);
  }
  reader.finish("request body");
  std::vector<Violation> violations;
  try {
    Pipeline pipeline = parse_pipeline(body.at("spec"), base, "spec");
    for (const PipelineJob& job : pipeline.jobs) {
      for (const PathUse& use : path_uses(job.spec)) {
        const std::string why = options_.roots.refuse(use.path);
        if (!why.empty()) violations.push_back({spec_pointer(body.at("spec"), job.spec.name) + use.pointer, why});
      }
    }
    if (violations.empty()) return pipeline;
  } catch (const ConfigError& error) {
    violations = error.violations();
    for (Violation& violation : violations) violation.pointer = "/spec" + violation.pointer;
  }
  throw ConfigError("request body", std::move(violations));
}

HttpResponse Api::submit(Call& call) {
  const std::string key = header_field(call.request, "idempotency-key");
  if (!key.empty() && !is_idempotency_key(key)) {
    return problem(400, "usage", "Idempotency-Key: expected 1 to 128 letters, digits, '_', '.', ':' or '-', found \"" + key + "\"",
                   call.request.target);
  }
  nlohmann::json body;
  try {
    body = parse_json(call.request.body, "request body");
  } catch (const Error& error) {
    return problem(400, to_string(error.code()), error.what(), call.request.target);
  }
  // Two callers' keys are two keys.
  SubmissionRecord submission{.key = call.caller.token + "/" + key, .fingerprint = sha256(body.dump()), .pipeline = "", .answer = ""};
  std::optional<SubmissionRecord> earlier;
  if (!key.empty()) earlier = coordinator_.submission(submission.key);
  if (earlier && earlier->fingerprint != submission.fingerprint) {
    return problem(422, "mismatch", "Idempotency-Key: \"" + key + "\" came with another body before, for pipeline " + earlier->pipeline +
                                        "; expected a key of its own for each submission", call.request.target);
  }
  if (!earlier && coordinator_.num_unfinished_jobs() >= options_.queue) {
    return problem(429, "unavailable", "the queue is full: " + std::to_string(options_.queue) + " jobs have not ended; try again later",
                   call.request.target);
  }
  const auto summary = [this](const std::string& id) { return job_summary(coordinator_.job(id)); };
  const auto answer = [&](const PipelineRecord& pipeline) {
    return json_response(201, {{"pipeline", {{"id", pipeline.id}, {"name", pipeline.name}}}, {"jobs", items(pipeline.jobs, summary)}}).body;
  };
  if (!earlier) {
    const auto remember = [&](const PipelineRecord& pipeline) { return submission.answer = answer(pipeline); };
    submission.pipeline = coordinator_.submit(parse_submission(body), key.empty() ? std::nullopt : std::optional(submission), remember).id;
    earlier = submission;
  } else if (earlier->answer.empty()) {  // by an earlier version, which ended before it had one
    earlier->answer = answer(coordinator_.pipeline(earlier->pipeline));
  }
  HttpResponse response;
  response.status = 201;
  response.headers["Location"] = "/api/v1/pipelines/" + earlier->pipeline;
  response.body = earlier->answer;
  return response;
}

HttpResponse Api::list_jobs(Call& call) {
  JobFilter filter;
  filter.state = job_state_from_string(call.query.text("state", ""));
  filter.pipeline = call.query.text("pipeline", "");
  filter.name = call.query.text("name", "");
  filter.parent = call.query.text("parent", "");
  filter.summaries = true;
  filter.after = call.integer("page_token");
  filter.limit = call.integer("limit") + 1;  // one more shows whether there is a next page
  return page(call, coordinator_.jobs(filter), [](const JobRecord& job) { return job.number; }, job_summary,
              {{"last_event_id", std::to_string(coordinator_.last_event())}});
}

HttpResponse Api::list_pipelines(Call& call) {
  const auto view = [](const PipelineRecord& pipeline) -> Json {
    return {{"id", pipeline.id}, {"name", pipeline.name}, {"created", pipeline.created}};
  };
  return page(call, coordinator_.pipelines(call.integer("page_token"), call.integer("limit") + 1),
              [](const PipelineRecord& pipeline) { return pipeline.number; }, view);
}

HttpResponse Api::openapi(Call&) {
  static const HttpResponse document = json_response(200, openapi_document(build_version()));  // takes milliseconds to make
  return document;
}

HttpResponse Api::show_job(Call& call) {
  const JobRecord job = coordinator_.job(call.id());
  Json details =
      job_details(job, coordinator_.attempts(job.id), coordinator_.alarms(job.id),
                  coordinator_.run_folder(job.id));
  details["last_event_id"] = std::to_string(coordinator_.last_event());
  return json_response(200, details);
}

HttpResponse Api::show_spec(Call& call) {
  return json_response(200, coordinator_.worker_spec(call.id()));
}

HttpResponse Api::show_logs(Call& call) {
  const JobRecord job = coordinator_.job(call.id());
  const std::string wanted = call.query.text("rank", "0");
  const bool of_mpirun = wanted == "mpirun";
  const int rank = of_mpirun ? 0 : std::stoi(wanted);  // the table's pattern holds
  if (rank >= std::max(1, job.ranks)) {
    throw Error(ErrorCode::kNotFound, job.id + ": rank " + wanted + ": expected 0 to " + std::to_string(job.ranks - 1));
  }
  const std::int64_t offset = call.integer("offset"), limit = call.integer("limit");
  const std::int64_t attempt = call.query.has("attempt") ? call.integer("attempt") : job.attempts;
  if (call.query.has("attempt") && attempt > job.attempts) {
    throw Error(ErrorCode::kNotFound, job.id + ": attempt " + std::to_string(attempt) +
                                          ": there are " + std::to_string(job.attempts));
  }
  std::string text;  // before the first attempt there is nothing to show yet
  if (attempt > 0) {
    const std::string run = coordinator_.run_folder(job.id);
    const int number = static_cast<int>(attempt);
    const std::string path =
        of_mpirun ? mpirun_log_file(run, number) : log_file(run, number, rank);
    text = read_beneath(run, path.substr(run.size() + 1), offset, limit);
  }
  const std::int64_t next = offset + static_cast<std::int64_t>(text.size());
  return {
      .status = 200,
      .content_type = "text/plain; charset=utf-8",
      .headers = {{"X-Next-Offset", std::to_string(next)}, {"X-Attempt", std::to_string(attempt)}},
      .body = std::move(text)};
}

HttpResponse Api::show_metrics(Call& call) {
  std::vector<std::string> keys;
  const std::string wanted = call.query.text("keys", "");
  if (!wanted.empty()) keys = split(wanted, ',');
  const std::int64_t max_points = call.integer("max_points");
  const JobRecord job = coordinator_.job(call.id());
  const auto view = [](const MetricSeries& series) -> Json {
    return {{"key", series.key}, {"points", items(series.points, metric_view)}};
  };
  return json_response(
      200,
      {{"job", job.id}, {"series", items(coordinator_.metrics(job.id, keys, max_points), view)}});
}

HttpResponse Api::list_checkpoints(Call& call) {
  // By iteration, then attempt.
  const auto key = [](const CheckpointRecord& checkpoint) { return checkpoint.iteration * (1 << 20) + checkpoint.attempt; };
  return page(call, coordinator_.checkpoints(call.id()), key, checkpoint_view);
}

HttpResponse Api::list_shards(Call& call) {
  return page(call, coordinator_.shards(call.id()), [](const LeaseRecord& lease) { return lease.shard + 1; }, lease_view);
}

HttpResponse Api::list_job_workers(Call& call) {
  const auto key = [](const WorkerRecord& worker) { return std::int64_t{worker.rank} + 1; };
  return page(call, coordinator_.workers(call.id()), key, worker_view);
}

HttpResponse Api::events(Call& call, const EventScope& scope) {
  std::set<std::string> types;
  const std::string wanted = call.query.text("types", "");
  if (!wanted.empty()) {
    for (const std::string& type : split(wanted, ',')) types.insert(type);
  }
  EventCursor after;
  if (const std::string id = header_field(call.request, "last-event-id"); !id.empty()) {
    const std::optional<EventCursor> parsed = event_cursor_from_string(id);
    if (!parsed) {
      return problem(400, "usage", "Last-Event-ID: expected the id of an event, found \"" + id + "\"",
                     call.request.target);
    }
    after = *parsed;
  }
  HttpResponse response;
  response.content_type = "text/event-stream";
  // A reverse proxy must not collect events.
  response.headers["X-Accel-Buffering"] = "no";
  if (call.request.method != "HEAD") response.stream = events_.subscribe(scope, after, types);
  return response;
}

HttpResponse Api::job_events(Call& call) {
  return events(call, {.job = coordinator_.job(call.id()).id, .pipeline = ""});
}

HttpResponse Api::pipeline_events(Call& call) {
  return events(call, {.job = "", .pipeline = coordinator_.pipeline(call.id()).id});
}

HttpResponse Api::all_events(Call& call) { return events(call, {}); }

HttpResponse Api::list_samples(Call& call) {
  const std::string job = coordinator_.job(call.id()).id;
  const auto view = [&](const SampleRecord& sample) -> Json {
    return {{"iteration", sample.iteration},
            {"images", sample.images},
            {"evaluation", sample.evaluation},
            {"frechet", sample.frechet ? Json(*sample.frechet) : Json(nullptr)},
            {"url", "/api/v1/jobs/" + job + "/samples/" + std::to_string(sample.iteration) + ".png"}};
  };
  return page(call, samples_of(coordinator_, job), [](const SampleRecord& sample) { return sample.iteration + 1; }, view);
}

HttpResponse Api::cancel(Call& call) {
  return json_response(202, job_summary(coordinator_.cancel(call.id())));
}

HttpResponse Api::resume(Call& call) {
  return json_response(202, job_summary(coordinator_.resume(call.id())));
}

HttpResponse Api::checkpoint_now(Call& call) {
  const JobRecord job = coordinator_.checkpoint_now(call.id());
  HttpResponse response = json_response(202, job_summary(job));
  response.headers["Location"] = "/api/v1/jobs/" + job.id + "/checkpoints";
  return response;
}

HttpResponse Api::show_pipeline(Call& call) {
  const PipelineRecord pipeline = coordinator_.pipeline(call.id());
  const auto summary = [this](const std::string& id) { return job_summary(coordinator_.job(id)); };
  return json_response(200, {{"id", pipeline.id},
                             {"name", pipeline.name},
                             {"created", pipeline.created},
                             {"last_event_id", std::to_string(coordinator_.last_event())},
                             {"jobs", items(pipeline.jobs, summary)}});
}

HttpResponse Api::health(Call&) {
  return json_response(
      200, {{"status", "ok"}, {"version", build_version()}, {"commit", build_commit()}});
}

HttpResponse Api::ready(Call& call) {
  if (stopping_)
    return problem(503, "unavailable", "the coordinator is stopping", call.request.target);
  coordinator_.jobs(
      {.state = std::nullopt, .pipeline = "", .name = "", .parent = "", .after = 0, .limit = 1});
  return json_response(200, {{"status", "ready"}});
}

}  // namespace onestep
