#include "coordinator/api.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <optional>
#include <tuple>
#include <utility>

#include "common/build_info.h"
#include "common/config.h"
#include "common/durable_file.h"
#include "common/hash.h"
#include "common/log.h"
#include "common/pipeline.h"
#include "coordinator/file_slice.h"
#include "coordinator/http_server.h"
#include "coordinator/job_view.h"
#include "coordinator/problem.h"
#include "coordinator/request_query.h"
#include "coordinator/samples.h"
#include "coordinator/tensorboard_file.h"
#include "coordinator/web_files.h"

namespace onestep {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::int64_t kMaxPage = 1000;
constexpr std::int64_t kMaxLogBytes = 1 << 20;
constexpr std::int64_t kMaxPoints = 100'000;

HttpResponse json_response(int status, const Json& body) {
  return {.status = status,
          .content_type = "application/json",
          .headers = {},
          // Reasons quote what programs printed, which need not be valid UTF-8.
          .body = body.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n"};
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

std::string header(const HttpRequest& request, const std::string& name) {
  const auto found = request.headers.find(name);
  return found == request.headers.end() ? "" : found->second;
}

// "127.0.0.1:8080" -> "127.0.0.1"; "[::1]:80" -> "[::1]".
std::string without_port(const std::string& host) {
  const std::size_t colon = host.rfind(':');
  const bool inside_brackets =
      colon != std::string::npos && host.find(']', colon) != std::string::npos;
  return colon == std::string::npos || inside_brackets ? host : host.substr(0, colon);
}

// A page of another site that a browser on this machine shows must not reach us, neither under a
// name that resolves to this machine (Host) nor by a request of its own (Origin).
std::optional<std::string> foreign_caller(const HttpRequest& request) {
  const std::string host = header(request, "host");
  if (!host.empty() && !is_loopback_host(without_port(host))) {
    return "Host: expected a loopback address or localhost, found \"" + host + "\"";
  }
  const std::string origin = header(request, "origin");
  if (!origin.empty() && origin != "http://" + host) {
    return "Origin: expected \"http://" + host + "\", found \"" + origin + "\"";
  }
  return std::nullopt;
}

// Segment by segment; "{id}" takes any one, decoded into `id`, and "{file}" into `file`.
bool matches(const std::string& pattern, const std::string& path, std::string& id,
             std::string& file) {
  const std::vector<std::string> expected = split(pattern, '/');
  const std::vector<std::string> found = split(path, '/');
  if (expected.size() != found.size()) return false;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    if (expected[i] == "{id}" || expected[i] == "{file}") {
      const std::optional<std::string> decoded = percent_decode(found[i]);
      if (!decoded || decoded->empty()) return false;
      (expected[i] == "{id}" ? id : file) = *decoded;
    } else if (expected[i] != found[i]) {
      return false;
    }
  }
  return true;
}

bool is_json_type(const std::string& content_type) {
  std::string type = content_type.substr(0, content_type.find(';'));
  while (!type.empty() && type.back() == ' ') type.pop_back();
  std::transform(type.begin(), type.end(), type.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  return type == "application/json";
}

// {"spec": ..., "base": "/abs"}; violations of the spec get pointers into this document.
Pipeline parse_submission(const nlohmann::json& body) {
  ConfigReader reader(body, "");
  const std::string base = reader.required_text("base");
  if (reader.violations().empty() && !base.starts_with('/')) {
    reader.violation("base", "expected an absolute folder, found \"" + base + "\"");
  }
  reader.know("spec");  // what is in it is for parse_pipeline
  if (body.is_object() && !body.contains("spec")) {
    reader.violation("spec", "expected a pipeline or a job spec, found nothing");
  }
  reader.finish("request body");
  try {
    return parse_pipeline(body.at("spec"), base, "spec");
  } catch (const ConfigError& error) {
    std::vector<Violation> violations = error.violations();
    for (Violation& violation : violations) violation.pointer = "/spec" + violation.pointer;
    throw ConfigError("request body", std::move(violations));
  }
}

// 304 when the client has these bytes already.
HttpResponse tagged_response(const HttpRequest& request, std::string_view type, std::string bytes) {
  const std::string tag = "\"" + sha256(bytes).substr(0, 32) + "\"";
  HttpResponse response;
  response.content_type = type;
  response.headers = {{"ETag", tag}, {"Cache-Control", "no-cache"}};
  if (header(request, "if-none-match") == tag) {
    response.status = 304;
  } else {
    response.body = std::move(bytes);
  }
  return response;
}

HttpResponse web_response(const HttpRequest& request, const WebFile& file) {
  HttpResponse response = tagged_response(request, file.content_type, std::string(file.bytes));
  response.headers["Content-Security-Policy"] = content_security_policy();
  response.headers["Referrer-Policy"] = "no-referrer";
  return response;
}

// Width and height, from the header that every PNG file begins with. Errors: kCorrupt.
std::pair<int, int> png_size(const std::string& bytes, const std::string& path) {
  constexpr std::size_t kWidthAt = 16, kEnd = 24;
  if (bytes.size() < kEnd || !bytes.starts_with("\x89PNG\r\n\x1a\n")) throw Error(ErrorCode::kCorrupt, path + ": expected a PNG file");
  int sizes[2] = {0, 0};
  for (std::size_t at = kWidthAt; at < kEnd; ++at) {
    int& size = sizes[(at - kWidthAt) / 4];
    size = size << 8 | static_cast<unsigned char>(bytes[at]);
  }
  return {sizes[0], sizes[1]};
}

template <class Records, class View>
Json items(const Records& records, View view) {
  Json list = Json::array();
  for (const auto& record : records) list.push_back(view(record));
  return list;
}

}  // namespace

// One request on its way through a handler.
struct Api::Call {
  const HttpRequest& request;
  std::string id;    // the path's {id}
  std::string file;  // the path's {file}
  RequestQuery query;
};

const std::vector<Api::Route>& Api::routes() {
  static const std::vector<Route> table = {
      {"POST", "/api/v1/jobs", &Api::submit},
      {"GET", "/api/v1/jobs", &Api::list_jobs},
      {"GET", "/api/v1/jobs/{id}", &Api::show_job},
      {"GET", "/api/v1/jobs/{id}/spec", &Api::show_spec},
      {"GET", "/api/v1/jobs/{id}/logs", &Api::show_logs},
      {"GET", "/api/v1/jobs/{id}/metrics", &Api::show_metrics},
      {"GET", "/api/v1/jobs/{id}/checkpoints", &Api::list_checkpoints},
      {"GET", "/api/v1/jobs/{id}/shards", &Api::list_shards},
      {"GET", "/api/v1/jobs/{id}/workers", &Api::list_job_workers},
      {"GET", "/api/v1/jobs/{id}/events", &Api::job_events},
      {"GET", "/api/v1/jobs/{id}/samples", &Api::list_samples},
      {"GET", "/api/v1/jobs/{id}/samples/{file}", &Api::show_sample},
      {"POST", "/api/v1/jobs/{id}/cancel", &Api::cancel},
      {"POST", "/api/v1/jobs/{id}/resume", &Api::resume},
      {"POST", "/api/v1/jobs/{id}/checkpoints", &Api::checkpoint_now},
      {"GET", "/api/v1/pipelines/{id}", &Api::show_pipeline},
      {"GET", "/api/v1/pipelines/{id}/events", &Api::pipeline_events},
      {"GET", "/api/v1/events", &Api::all_events},
      {"GET", "/api/v1/jobs/{id}/tensorboard", &Api::tensorboard},
      {"GET", "/metrics", &Api::service_metrics},
      {"GET", "/healthz", &Api::health},
      {"GET", "/readyz", &Api::ready}};
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
    if (const std::optional<std::string> why = foreign_caller(request)) {
      return problem(403, "forbidden", *why, request.target);
    }
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
  std::string allowed;
  for (const Route& route : routes()) {
    std::string id, file;
    if (!matches(route.path, path, id, file)) continue;
    met = route.path;
    if (route.method == method) {
      const std::string query =
          question == std::string::npos ? "" : request.target.substr(question + 1);
      Call call{request, id, file, RequestQuery(query)};
      return (this->*route.handler)(call);
    }
    allowed += (allowed.empty() ? "" : ", ") + std::string(route.method);
    if (std::string(route.method) == "GET") allowed += ", HEAD";
  }
  if (allowed.empty()) return problem(404, "not_found", "no such path: " + path, request.target);
  HttpResponse response = problem(
      405, "usage", path + ": expected " + allowed + ", found " + request.method, request.target);
  response.headers["Allow"] = allowed;
  return response;
}

HttpResponse Api::submit(Call& call) {
  call.query.finish();
  const std::string type = header(call.request, "content-type");
  if (!is_json_type(type)) {
    return problem(415, "usage", "Content-Type: expected application/json, found \"" + type + "\"",
                   call.request.target);
  }
  nlohmann::json body;
  try {
    body = parse_json(call.request.body, "request body");
  } catch (const Error& error) {
    return problem(400, to_string(error.code()), error.what(), call.request.target);
  }
  const PipelineRecord pipeline = coordinator_.submit(parse_submission(body));
  const auto summary = [this](const std::string& id) { return job_summary(coordinator_.job(id)); };
  HttpResponse response =
      json_response(201, {{"pipeline", {{"id", pipeline.id}, {"name", pipeline.name}}},
                          {"jobs", items(pipeline.jobs, summary)}});
  response.headers["Location"] = "/api/v1/pipelines/" + pipeline.id;
  return response;
}

HttpResponse Api::list_jobs(Call& call) {
  JobFilter filter;
  const std::string state = call.query.text("state", "");
  if (call.query.has("state")) {
    filter.state = job_state_from_string(state);
    std::string known;
    for (const JobState each : all_job_states())
      known += (known.empty() ? "" : ", ") + std::string(to_string(each));
    if (!filter.state)
      call.query.violation("state", "expected one of " + known + ", found \"" + state + "\"");
  }
  filter.pipeline = call.query.text("pipeline", "");
  filter.name = call.query.text("name", "");
  filter.parent = call.query.text("parent", "");
  filter.after = call.query.integer("page_token", 0, 0, std::numeric_limits<std::int64_t>::max());
  const std::int64_t limit = call.query.integer("limit", 100, 1, kMaxPage);
  call.query.finish();
  filter.summaries = true;
  filter.limit = limit + 1;  // one more shows whether there is a next page
  std::vector<JobRecord> jobs = coordinator_.jobs(filter);
  Json next;
  if (static_cast<std::int64_t>(jobs.size()) > limit) {
    jobs.resize(static_cast<std::size_t>(limit));
    next = std::to_string(jobs.back().number);
  }
  return json_response(200, {{"items", items(jobs, job_summary)},
                             {"next_page_token", next},
                             {"last_event_id", std::to_string(coordinator_.last_event())}});
}

HttpResponse Api::show_job(Call& call) {
  call.query.finish();
  const JobRecord job = coordinator_.job(call.id);
  Json details =
      job_details(job, coordinator_.attempts(job.id), coordinator_.alarms(job.id),
                  coordinator_.run_folder(job.id));
  details["last_event_id"] = std::to_string(coordinator_.last_event());
  return json_response(200, details);
}

HttpResponse Api::show_spec(Call& call) {
  call.query.finish();
  return json_response(200, coordinator_.worker_spec(call.id));
}

HttpResponse Api::show_logs(Call& call) {
  const JobRecord job = coordinator_.job(call.id);
  const bool of_mpirun = call.query.text("rank", "0") == "mpirun";
  const std::int64_t rank =
      of_mpirun ? 0 : call.query.integer("rank", 0, 0, std::max(0, job.ranks - 1));
  const std::int64_t offset =
      call.query.integer("offset", 0, 0, std::numeric_limits<std::int64_t>::max());
  const std::int64_t limit = call.query.integer("limit", 64 * 1024, 1, kMaxLogBytes);
  const std::int64_t attempt =
      call.query.integer("attempt", job.attempts, 1, std::numeric_limits<std::int32_t>::max());
  call.query.finish();
  if (call.query.has("attempt") && attempt > job.attempts) {
    throw Error(ErrorCode::kNotFound, job.id + ": attempt " + std::to_string(attempt) +
                                          ": there are " + std::to_string(job.attempts));
  }
  std::string text;  // before the first attempt there is nothing to show yet
  if (attempt > 0) {
    const std::string run = coordinator_.run_folder(job.id);
    const int number = static_cast<int>(attempt);
    text = read_file_slice(
        of_mpirun ? mpirun_log_file(run, number) : log_file(run, number, static_cast<int>(rank)),
        offset, limit);
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
  const std::int64_t max_points = call.query.integer("max_points", 1000, 2, kMaxPoints);
  call.query.finish();
  const JobRecord job = coordinator_.job(call.id);
  const auto view = [](const MetricSeries& series) -> Json {
    return {{"key", series.key}, {"points", items(series.points, metric_view)}};
  };
  return json_response(
      200,
      {{"job", job.id}, {"series", items(coordinator_.metrics(job.id, keys, max_points), view)}});
}

HttpResponse Api::list_checkpoints(Call& call) {
  call.query.finish();
  return json_response(200, {{"items", items(coordinator_.checkpoints(call.id), checkpoint_view)}});
}

HttpResponse Api::list_shards(Call& call) {
  call.query.finish();
  return json_response(200, {{"items", items(coordinator_.shards(call.id), lease_view)}});
}

HttpResponse Api::list_job_workers(Call& call) {
  call.query.finish();
  return json_response(200, {{"items", items(coordinator_.workers(call.id), worker_view)}});
}

HttpResponse Api::events(Call& call, const EventScope& scope) {
  std::set<std::string> types;
  const std::string wanted = call.query.text("types", "");
  const std::vector<std::string>& known = event_types();
  for (const std::string& type : wanted.empty() ? std::vector<std::string>{} : split(wanted, ',')) {
    if (std::find(known.begin(), known.end(), type) == known.end()) {
      call.query.violation("types", "expected some of state, metric, checkpoint, alarm, log, "
                                    "progress, found \"" + type + "\"");
    }
    types.insert(type);
  }
  call.query.finish();
  EventCursor after;
  if (const std::string id = header(call.request, "last-event-id"); !id.empty()) {
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
  return events(call, {.job = coordinator_.job(call.id).id, .pipeline = ""});
}

HttpResponse Api::pipeline_events(Call& call) {
  return events(call, {.job = "", .pipeline = coordinator_.pipeline(call.id).id});
}

HttpResponse Api::all_events(Call& call) { return events(call, {}); }

HttpResponse Api::list_samples(Call& call) {
  call.query.finish();
  const std::string job = coordinator_.job(call.id).id;
  const auto view = [&](const SampleRecord& sample) -> Json {
    return {{"iteration", sample.iteration},
            {"images", sample.images},
            {"evaluation", sample.evaluation},
            {"frechet", sample.frechet ? Json(*sample.frechet) : Json(nullptr)},
            {"url", "/api/v1/jobs/" + job + "/samples/" + std::to_string(sample.iteration) + ".png"}};
  };
  return json_response(200, {{"items", items(samples_of(coordinator_, job), view)}});
}

HttpResponse Api::show_sample(Call& call) {
  call.query.finish();
  for (const SampleRecord& sample : samples_of(coordinator_, call.id)) {
    if (call.file != std::to_string(sample.iteration) + ".png") continue;
    return tagged_response(call.request, "image/png", read_file(sample.file));
  }
  throw Error(ErrorCode::kNotFound, "samples of " + call.id + ": expected ITERATION.png of an evaluated " +
                                        "checkpoint, found \"" + call.file + "\"");
}

HttpResponse Api::cancel(Call& call) {
  call.query.finish();
  return json_response(202, job_summary(coordinator_.cancel(call.id)));
}

HttpResponse Api::resume(Call& call) {
  call.query.finish();
  return json_response(202, job_summary(coordinator_.resume(call.id)));
}

HttpResponse Api::checkpoint_now(Call& call) {
  call.query.finish();
  const JobRecord job = coordinator_.checkpoint_now(call.id);
  HttpResponse response = json_response(202, job_summary(job));
  response.headers["Location"] = "/api/v1/jobs/" + job.id + "/checkpoints";
  return response;
}

HttpResponse Api::show_pipeline(Call& call) {
  call.query.finish();
  const PipelineRecord pipeline = coordinator_.pipeline(call.id);
  const auto summary = [this](const std::string& id) { return job_summary(coordinator_.job(id)); };
  return json_response(200, {{"id", pipeline.id},
                             {"name", pipeline.name},
                             {"created", pipeline.created},
                             {"last_event_id", std::to_string(coordinator_.last_event())},
                             {"jobs", items(pipeline.jobs, summary)}});
}

HttpResponse Api::tensorboard(Call& call) {
  call.query.finish();
  const JobRecord job = coordinator_.job(call.id);
  std::vector<TensorboardPicture> pictures;
  for (const SampleRecord& sample : samples_of(coordinator_, job.id)) {
    TensorboardPicture& picture = pictures.emplace_back();
    picture.iteration = sample.iteration;
    picture.time = job.created;
    picture.png = read_file(sample.file);
    std::tie(picture.width, picture.height) = png_size(picture.png, sample.file);
  }
  HttpResponse response;
  response.content_type = "application/octet-stream";
  response.headers["Content-Disposition"] =
      "attachment; filename=\"events.out.tfevents." + std::to_string(static_cast<std::int64_t>(job.created)) + "." + job.id + "\"";
  response.body = tensorboard_file(coordinator_.metrics(job.id, {}, kMaxPoints), pictures, job.created);
  return response;
}

HttpResponse Api::service_metrics(Call& call) {
  call.query.finish();
  HttpResponse response;
  response.content_type = ServiceMetrics::kContentType;
  response.body = metrics_.text(coordinator_, {.event_readers = events_.num_readers()});
  return response;
}

HttpResponse Api::health(Call& call) {
  call.query.finish();
  return json_response(
      200, {{"status", "ok"}, {"version", build_version()}, {"commit", build_commit()}});
}

HttpResponse Api::ready(Call& call) {
  call.query.finish();
  if (stopping_)
    return problem(503, "unavailable", "the coordinator is stopping", call.request.target);
  coordinator_.jobs(
      {.state = std::nullopt, .pipeline = "", .name = "", .parent = "", .after = 0, .limit = 1});
  return json_response(200, {{"status", "ready"}});
}

}  // namespace onestep
