#include "coordinator/contract.h"

#include <algorithm>
#include <limits>
#include <regex>

#include "coordinator/event_hub.h"
#include "coordinator/job_state.h"

namespace onestep {
namespace {

constexpr std::int64_t kLargest = std::numeric_limits<std::int64_t>::max();

Parameter text(const char* name, const char* what) { return {.name = name, .kind = Parameter::Kind::kText, .what = what}; }
Parameter integer(const char* name, const char* what, std::int64_t min, std::int64_t max,
                  std::optional<std::int64_t> usual = std::nullopt) {
  return {.name = name, .kind = Parameter::Kind::kInteger, .what = what, .min = min, .max = max, .usual = usual};
}
Parameter choice(const char* name, const char* what, std::vector<std::string> choices) {
  return {.name = name, .kind = Parameter::Kind::kChoice, .what = what, .choices = std::move(choices)};
}
Parameter choices(const char* name, const char* what, std::vector<std::string> known) {
  return {.name = name, .kind = Parameter::Kind::kChoices, .what = what, .choices = std::move(known)};
}

std::vector<std::string> state_names() {
  std::vector<std::string> names;
  for (const JobState state : all_job_states()) names.emplace_back(to_string(state));
  return names;
}

// A page: so many items after the one that the token names.
std::vector<Parameter> paged(std::vector<Parameter> others, std::int64_t usual) {
  others.push_back(integer("limit", "items of a page", 1, 1000, usual));
  others.push_back(integer("page_token", "the next_page_token of the page before", 0, kLargest, 0));
  return others;
}

Answer ok(const char* what, const char* schema) { return {.status = 200, .what = what, .schema = schema}; }
Answer accepted(const char* what, const char* schema) { return {.status = 202, .what = what, .schema = schema}; }
Answer page(const char* what, const char* schema) {
  return {.status = 200, .what = what, .schema = schema, .headers = {"Link"}};
}
std::vector<Answer> download(const char* what, const char* type) {
  return {{.status = 200, .what = what, .schema = "Bytes", .content_type = type, .headers = {"ETag", "Accept-Ranges"}},
          {.status = 206, .what = "the bytes of Range", .schema = "Bytes", .content_type = type, .headers = {"ETag", "Content-Range"}},
          {.status = 304, .what = "If-None-Match names it: the client has it"}};
}
Answer events(const char* what) {
  return {.status = 200, .what = what, .schema = "Events", .content_type = "text/event-stream"};
}

Operation get(const char* id, const char* path, const char* what, std::vector<Parameter> query, std::vector<Answer> answers,
              std::vector<int> problems) {
  return {.id = id, .method = "GET", .path = path, .role = Role::kRead, .what = what, .query = std::move(query),
          .answers = std::move(answers), .problems = std::move(problems)};
}
Operation post(const char* id, const char* path, const char* what, Answer answer, std::vector<int> problems) {
  return {.id = id, .method = "POST", .path = path, .role = Role::kSubmit, .what = what, .answers = {std::move(answer)},
          .problems = std::move(problems)};
}
// For the coordinator's administrator alone.
Operation admin(Operation operation) {
  operation.role = Role::kAdmin;
  return operation;
}
Operation submission(const char* id, const char* path) {
  Operation operation = post(id, path, "submits a pipeline or one job; answered when it is on disk",
                             {.status = 201, .what = "submitted", .schema = "Submitted", .headers = {"Location"}},
                             {409, 413, 415, 422, 429, 507});
  operation.body = "Submission";
  operation.idempotency_key = true;
  return operation;
}

std::vector<Operation> make_operations() {
  const Parameter types = choices("types", "events wanted; without it all", event_types());
  const Parameter attempt = integer("attempt", "default: the newest", 1, std::numeric_limits<std::int32_t>::max());
  std::vector<Operation> table = {
      submission("submitJobs", "/api/v1/jobs"),
      get("listJobs", "/api/v1/jobs", "jobs, oldest first",
          paged({choice("state", "only those in it", state_names()), text("pipeline", "only those of this pipeline"),
                 text("name", "only those of this name"), text("parent", "only evaluations of this job")}, 100),
          {page("a page of jobs", "JobPage")}, {}),
      get("showJob", "/api/v1/jobs/{id}", "all about a job", {}, {ok("the job", "JobDetails")}, {404}),
      get("showJobSpec", "/api/v1/jobs/{id}/spec", "the spec as the worker gets it", {}, {ok("the spec", "Object")}, {404}),
      get("showLogs", "/api/v1/jobs/{id}/logs", "a piece of a log",
          {{.name = "rank", .what = "a rank, or mpirun", .pattern = "^(mpirun|[0-9]{1,9})$"}, attempt, integer("offset", "first byte", 0, kLargest, 0),
           integer("limit", "bytes at most", 1, 1 << 20, 64 * 1024)},
          {{.status = 200, .what = "its bytes", .schema = "Text", .content_type = "text/plain",
            .headers = {"X-Next-Offset", "X-Attempt"}}},
          {404, 409}),
      get("showMetrics", "/api/v1/jobs/{id}/metrics", "curves",
          {text("keys", "their names, with commas between; without it all"),
           integer("max_points", "of each curve", 2, kMaxCurvePoints, 1000)},
          {ok("the curves", "Metrics")}, {404}),
      get("listCheckpoints", "/api/v1/jobs/{id}/checkpoints", "those committed", paged({}, 1000),
          {page("a page of checkpoints", "CheckpointPage")}, {404}),
      get("showCheckpoint", "/api/v1/jobs/{id}/checkpoints/{checkpoint}", "one of them and its files", {},
          {ok("the checkpoint", "CheckpointFiles")}, {404, 409}),
      get("downloadCheckpointFile", "/api/v1/jobs/{id}/checkpoints/{checkpoint}/files/{file}", "one of its files", {},
          download("the file", "application/octet-stream"), {404, 409, 416}),
      get("showExport", "/api/v1/jobs/{id}/export", "the files that an export job made", {}, {ok("the files", "Files")}, {404, 409}),
      get("downloadExportFile", "/api/v1/jobs/{id}/export/{file}", "one of them", {},
          download("the file", "application/octet-stream"), {404, 409, 416}),
      get("listShards", "/api/v1/jobs/{id}/shards", "who writes which shard of a pair set", paged({}, 1000),
          {page("a page of shards", "ShardPage")}, {404}),
      get("listWorkers", "/api/v1/jobs/{id}/workers", "the ranks that run", paged({}, 1000),
          {page("a page of ranks", "WorkerPage")}, {404}),
      get("listSamples", "/api/v1/jobs/{id}/samples", "pictures of its judged checkpoints", paged({}, 1000),
          {page("a page of samples", "SamplePage")}, {404}),
      get("showSample", "/api/v1/jobs/{id}/samples/{file}", "one of them, ITERATION.png", {}, download("the picture", "image/png"),
          {404, 409, 416}),
      get("jobEvents", "/api/v1/jobs/{id}/events", "what happens to it", {types}, {events("server-sent events")}, {404, 409}),
      post("cancelJob", "/api/v1/jobs/{id}/cancel", "a running job saves and ends; may be repeated",
           accepted("the job", "JobSummary"), {404, 409, 507}),
      post("resumeJob", "/api/v1/jobs/{id}/resume", "an ended job goes on from its newest checkpoint",
           accepted("the job", "JobSummary"), {404, 409, 507}),
      post("checkpointJob", "/api/v1/jobs/{id}/checkpoints", "asks for a checkpoint now",
           {.status = 202, .what = "the job", .schema = "JobSummary", .headers = {"Location"}}, {404, 409}),
      submission("submitPipeline", "/api/v1/pipelines"),
      get("listPipelines", "/api/v1/pipelines", "pipelines, oldest first", paged({}, 100),
          {page("a page of pipelines", "PipelinePage")}, {}),
      get("showPipeline", "/api/v1/pipelines/{id}", "a pipeline and its jobs in order", {}, {ok("the pipeline", "PipelineDetails")}, {404}),
      get("pipelineEvents", "/api/v1/pipelines/{id}/events", "what happens to its jobs", {types}, {events("server-sent events")}, {404, 409}),
      get("allEvents", "/api/v1/events", "what happens to all jobs", {types}, {events("server-sent events")}, {409}),
      get("showTensorboard", "/api/v1/jobs/{id}/tensorboard", "its curves and pictures as a TensorBoard event file", {},
          {{.what = "the event file", .schema = "Bytes", .content_type = "application/octet-stream", .headers = {"Content-Disposition"}}}, {404}),
      admin(get("listTokens", "/api/v1/tokens", "tokens that open something, or did, by age", paged({}, 1000),
                {page("a page of tokens", "TokenPage")}, {})),
      admin({.id = "addToken", .method = "POST", .path = "/api/v1/tokens", .role = {}, .what = "makes a token; the answer alone ever shows it",
             .body = "TokenRequest",
             .answers = {{.status = 201, .what = "made", .schema = "NewToken", .headers = {"Location"}}},
             .problems = {413, 415, 422, 507}}),
      admin({.id = "revokeToken", .method = "DELETE", .path = "/api/v1/tokens/{id}", .role = {}, .what = "it opens nothing any more; may be repeated",
             .answers = {ok("the token", "Token")}, .problems = {404, 409, 507}}),
      get("serviceMetrics", "/metrics", "figures of the service for Prometheus", {},
          {{.what = "Prometheus' text format", .schema = "Text", .content_type = "text/plain"}}, {}),
      get("openapi", "/api/v1/openapi.json", "this document", {}, {ok("OpenAPI 3.1", "Object")}, {}),
      get("health", "/healthz", "does the process live", {}, {ok("it does", "Health")}, {}),
      get("ready", "/readyz", "are jobs taken", {}, {ok("they are", "Ready")}, {})};
  for (Operation& operation : table) {
    if (operation.id == "health" || operation.id == "ready") operation.role = std::nullopt;
  }
  return table;
}

std::string joined(const std::vector<std::string>& words) {
  std::string list;
  for (const std::string& word : words) list += (list.empty() ? "" : ", ") + word;
  return list;
}

bool is_one_of(const std::string& word, const std::vector<std::string>& words) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

void check_parameter(const Parameter& parameter, RequestQuery& query) {
  if (parameter.kind == Parameter::Kind::kInteger) {
    query.integer(parameter.name, 0, parameter.min, parameter.max);
    return;
  }
  const std::string value = query.text(parameter.name, "");
  if (!query.has(parameter.name)) return;
  if (!parameter.pattern.empty() && !std::regex_match(value.substr(0, 256), std::regex(parameter.pattern))) {
    query.violation(parameter.name, "expected " + parameter.what + ", found \"" + value + "\"");
  }
  if (parameter.kind == Parameter::Kind::kChoice && !is_one_of(value, parameter.choices)) {
    query.violation(parameter.name, "expected one of " + joined(parameter.choices) + ", found \"" + value + "\"");
  }
  if (parameter.kind != Parameter::Kind::kChoices) return;
  for (std::size_t start = 0; start <= value.size();) {
    const std::size_t comma = std::min(value.find(',', start), value.size());
    const std::string word = value.substr(start, comma - start);
    if (!is_one_of(word, parameter.choices)) {
      query.violation(parameter.name, "expected some of " + joined(parameter.choices) + ", found \"" + word + "\"");
    }
    start = comma + 1;
  }
}

std::vector<std::string> segments(const std::string& path) {
  std::vector<std::string> parts(1);
  for (const char c : path) {
    if (c == '/') {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  return parts;
}

}  // namespace

const std::vector<Operation>& operations() {
  static const std::vector<Operation> table = make_operations();
  return table;
}

void check_query(const Operation& operation, RequestQuery& query) {
  for (const Parameter& parameter : operation.query) check_parameter(parameter, query);
  query.finish();
}

std::optional<std::vector<std::string>> match_path(const std::string& pattern, const std::string& path) {
  const std::vector<std::string> expected = segments(pattern), found = segments(path);
  if (expected.size() != found.size()) return std::nullopt;
  std::vector<std::string> values;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    if (!expected[i].starts_with('{')) {
      if (expected[i] != found[i]) return std::nullopt;
      continue;
    }
    const std::optional<std::string> decoded = percent_decode(found[i]);
    if (!decoded || decoded->empty()) return std::nullopt;
    values.push_back(*decoded);
  }
  return values;
}

}  // namespace onestep
