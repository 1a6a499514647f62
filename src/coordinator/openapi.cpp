// The OpenAPI document of the contract.
#include <set>

#include "common/job_spec_schema.h"
#include "coordinator/contract.h"
#include "coordinator/http_message.h"

namespace onestep {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kSchemas = "#/components/schemas/";

// Shapes of answers. Fields may be added to them; those named stay (docs/rest.md).
constexpr const char* kAnswerSchemas = R"json({
"Object": {"type": "object"},
"Text": {"type": "string"},
"Bytes": {"type": "string", "format": "binary"},
"Events": {"type": "string", "description": "server-sent events: id, event, data (a JSON object)"},
"Time": {"type": ["number", "null"], "description": "Unix seconds"},
"Problem": {"type": "object", "required": ["type", "title", "status", "detail", "instance"], "properties": {
  "type": {"type": "string"}, "title": {"type": "string"}, "status": {"type": "integer"}, "detail": {"type": "string"},
  "instance": {"type": "string"}, "errors": {"type": "array", "items": {"type": "object", "required": ["detail"], "properties": {
    "pointer": {"type": "string", "description": "JSON pointer into the body"},
    "parameter": {"type": "string", "description": "field of the query"}, "detail": {"type": "string"}}}}}},
"JobSummary": {"type": "object",
  "required": ["id", "name", "kind", "state", "reason", "attempts", "digest", "pipeline", "parent", "progress", "result", "ranks",
    "created", "started", "ended"],
  "properties": {"id": {"type": "string"}, "name": {"type": "string"}, "kind": {"type": "string"},
    "state": {"enum": ["waiting", "blocked", "queued", "starting", "running", "stopping", "succeeded", "failed", "cancelled", "interrupted"]},
    "reason": {"type": "string"}, "attempts": {"type": "integer"}, "digest": {"type": "string"}, "pipeline": {"type": "string"},
    "parent": {"type": "string"}, "progress": {"type": ["object", "null"]}, "result": {"type": ["object", "null"]},
    "ranks": {"type": "integer"}, "created": {"$ref": "#/components/schemas/Time"}, "started": {"$ref": "#/components/schemas/Time"},
    "ended": {"$ref": "#/components/schemas/Time"}}},
"JobDetails": {"type": "object",
  "required": ["id", "name", "kind", "state", "reason", "attempts", "failures", "after", "run_folder", "outcome", "spec", "last_event_id"],
  "properties": {"id": {"type": "string"}, "attempts": {"type": "array", "items": {"type": "object",
    "required": ["number", "state", "started", "ended", "reason"]}}, "after": {"type": "array", "items": {"type": "string"}},
    "run_folder": {"type": "string"}, "outcome": {"type": ["object", "null"]}, "spec": {"type": "object"},
    "last_event_id": {"type": "string"}}},
"Submitted": {"type": "object", "required": ["pipeline", "jobs"], "properties": {
  "pipeline": {"type": "object", "required": ["id", "name"]},
  "jobs": {"type": "array", "items": {"$ref": "#/components/schemas/JobSummary"}}}},
"Pipeline_": {"type": "object", "required": ["id", "name", "created"]},
"PipelineDetails": {"type": "object", "required": ["id", "name", "created", "jobs", "last_event_id"], "properties": {
  "jobs": {"type": "array", "items": {"$ref": "#/components/schemas/JobSummary"}}}},
"Checkpoint": {"type": "object",
  "required": ["iteration", "images", "attempt", "folder", "digest", "bytes", "committed", "frechet", "best"]},
"File": {"type": "object", "required": ["name", "bytes", "sha256", "url"], "properties": {"name": {"type": "string"},
  "bytes": {"type": "integer"}, "sha256": {"type": "string"}, "url": {"type": "string"}}},
"Files": {"type": "object", "required": ["items"], "properties": {"items": {"type": "array", "items": {"$ref": "#/components/schemas/File"}}}},
"CheckpointFiles": {"type": "object", "required": ["iteration", "digest", "files"], "properties": {
  "files": {"type": "array", "items": {"$ref": "#/components/schemas/File"}}}},
"Shard": {"type": "object", "required": ["index", "first", "count", "state", "rank", "attempt", "sha256"]},
"Worker": {"type": "object", "required": ["job", "attempt", "rank", "host", "pid", "last_heard", "trouble"]},
"Sample": {"type": "object", "required": ["iteration", "images", "evaluation", "frechet", "url"]},
"Metrics": {"type": "object", "required": ["job", "series"], "properties": {"job": {"type": "string"}, "series": {"type": "array",
  "items": {"type": "object", "required": ["key", "points"]}}}},
"Token": {"type": "object", "required": ["id", "role", "label", "state", "created", "expires"], "properties": {
  "id": {"type": "string"}, "role": {"enum": ["read", "submit", "admin"]}, "label": {"type": "string"},
  "state": {"enum": ["valid", "expired", "revoked"]}, "created": {"$ref": "#/components/schemas/Time"},
  "expires": {"$ref": "#/components/schemas/Time"}}},
"NewToken": {"type": "object", "required": ["id", "role", "token"], "properties": {"id": {"type": "string"},
  "role": {"enum": ["read", "submit", "admin"]}, "token": {"type": "string"}}},
"Health": {"type": "object", "required": ["status", "version", "commit"]},
"Ready": {"type": "object", "required": ["status"]}
})json";

Json page_of(const std::string& item) {
  return {{"type", "object"},
          {"required", {"items", "next_page_token", "next"}},
          {"properties",
           {{"items", {{"type", "array"}, {"items", {{"$ref", kSchemas + item}}}}},
            {"next_page_token", {{"type", {"string", "null"}}}},
            {"next", {{"type", {"string", "null"}}, {"description", "target of the next page; null at the end"}}}}}};
}

Json schemas() {
  Json all = Json::parse(kAnswerSchemas);
  const std::vector<std::pair<const char*, const char*>> pages = {
      {"JobPage", "JobSummary"}, {"PipelinePage", "Pipeline_"}, {"CheckpointPage", "Checkpoint"},
      {"ShardPage", "Shard"},    {"WorkerPage", "Worker"},      {"SamplePage", "Sample"},
      {"TokenPage", "Token"}};
  for (const auto& [name, item] : pages) all[name] = page_of(item);
  const Json specs = job_spec_schemas(kSchemas);
  for (const auto& [name, schema] : specs.items()) all[name] = schema;
  all["TokenRequest"] = {{"type", "object"},
                         {"required", {"role"}},
                         {"additionalProperties", false},
                         {"properties",
                          {{"role", {{"enum", {"read", "submit", "admin"}}}},
                           {"label",
                            {{"type", "string"},
                             {"maxLength", kMaxTokenLabel},
                             {"pattern", "^[^\\u0000-\\u001f\\u007f]*$"},
                             {"description", "for people: whose it is"}}},
                           {"lifetime_s",
                            {{"type", "integer"},
                             {"minimum", 0},
                             {"maximum", kMaxTokenLifetime_s},
                             {"default", kTokenLifetime_s},
                             {"description", "0: it never expires"}}}}}};
  all["Submission"] = {{"type", "object"},
                       {"required", {"spec", "base"}},
                       {"additionalProperties", false},
                       {"properties",
                        {{"spec", {{"oneOf", {{{"$ref", std::string(kSchemas) + "Pipeline"}}, {{"$ref", std::string(kSchemas) + "Job"}}}}}},
                         {"base",
                          {{"type", "string"},
                           {"pattern", "^/"},
                           {"description", "absolute folder on the coordinator's machine that relative paths start from"}}}}}};
  return all;
}

Json schema_of(const Parameter& parameter) {
  switch (parameter.kind) {
    case Parameter::Kind::kInteger: {
      Json schema = {{"type", "integer"}, {"minimum", parameter.min}, {"maximum", parameter.max}};
      if (parameter.usual) schema["default"] = *parameter.usual;
      return schema;
    }
    case Parameter::Kind::kChoice: return {{"type", "string"}, {"enum", parameter.choices}};
    case Parameter::Kind::kChoices:
      return {{"type", "array"}, {"minItems", 1}, {"items", {{"type", "string"}, {"enum", parameter.choices}}}};
    case Parameter::Kind::kText: break;
  }
  if (!parameter.pattern.empty()) return {{"type", "string"}, {"pattern", parameter.pattern}};
  return {{"type", "string"}};
}

// Names between braces, in order.
std::vector<std::string> path_parameters(const std::string& path) {
  std::vector<std::string> names;
  for (std::size_t start = path.find('{'); start != std::string::npos; start = path.find('{', start + 1)) {
    names.push_back(path.substr(start + 1, path.find('}', start) - start - 1));
  }
  return names;
}

Json parameters_of(const Operation& operation) {
  Json list = Json::array();
  for (const std::string& name : path_parameters(operation.path)) {
    list.push_back({{"name", name}, {"in", "path"}, {"required", true}, {"schema", {{"type", "string"}, {"minLength", 1}}}});
  }
  for (const Parameter& parameter : operation.query) {
    Json entry = {{"name", parameter.name}, {"in", "query"}, {"description", parameter.what}, {"schema", schema_of(parameter)}};
    if (parameter.kind == Parameter::Kind::kChoices) {
      entry["style"] = "form";
      entry["explode"] = false;
    }
    list.push_back(std::move(entry));
  }
  if (operation.idempotency_key) {
    list.push_back({{"name", "Idempotency-Key"},
                    {"in", "header"},
                    {"description", "the same key and body again: the same answer, and nothing is submitted twice"},
                    {"schema", {{"type", "string"}, {"pattern", "^[A-Za-z0-9_.:-]{1,128}$"}}}});
  }
  return list;
}

Json headers_of(const std::vector<std::string>& names) {
  Json headers = Json::object();
  for (const std::string& name : names) headers[name] = {{"schema", {{"type", "string"}}}};
  return headers;
}

Json problem_answer(int status) {
  Json answer = {{"description", reason_phrase(status)},
                 {"content", {{"application/problem+json", {{"schema", {{"$ref", std::string(kSchemas) + "Problem"}}}}}}}};
  if (status == 429 || status == 503) answer["headers"] = headers_of({"Retry-After"});
  if (status == 401) answer["headers"] = headers_of({"WWW-Authenticate"});
  return answer;
}

Json answers_of(const Operation& operation) {
  Json answers = Json::object();
  for (const Answer& answer : operation.answers) {
    Json entry = {{"description", answer.what}};
    if (!answer.headers.empty()) entry["headers"] = headers_of(answer.headers);
    if (!answer.schema.empty()) entry["content"] = {{answer.content_type, {{"schema", {{"$ref", kSchemas + answer.schema}}}}}};
    answers[std::to_string(answer.status)] = std::move(entry);
  }
  std::set<int> problems = {400, 403, 431, 500, 503};
  problems.insert(operation.problems.begin(), operation.problems.end());
  if (operation.role) problems.insert(401);
  for (const int status : problems) answers[std::to_string(status)] = problem_answer(status);
  return answers;
}

}  // namespace

Json openapi_document(const std::string& version) {
  Json paths = Json::object();
  for (const Operation& operation : operations()) {
    std::string method = operation.method;
    for (char& c : method) c = static_cast<char>(c - 'A' + 'a');
    Json entry = {{"operationId", operation.id}, {"summary", operation.what}};
    if (operation.role) {
      entry["description"] = std::string("Role: ") + to_string(*operation.role);
    } else {
      entry["security"] = Json::array();
    }
    entry["parameters"] = parameters_of(operation);
    if (!operation.body.empty()) {
      entry["requestBody"] = {{"required", true},
                              {"content", {{"application/json", {{"schema", {{"$ref", kSchemas + operation.body}}}}}}}};
    }
    entry["responses"] = answers_of(operation);
    paths[operation.path][method] = std::move(entry);
  }
  return {{"openapi", "3.1.0"},
          {"info", {{"title", "Onestep coordinator"}, {"version", version}, {"description", "See docs/rest.md."}}},
          {"servers", {{{"url", "/"}}}},
          // A token where the coordinator asks for one; none on a loopback address without tokens.
          {"security", {{{"bearer", Json::array()}}, Json::object()}},
          {"paths", paths},
          {"components",
           {{"securitySchemes", {{"bearer", {{"type", "http"}, {"scheme", "bearer"}}}}}, {"schemas", schemas()}}}};
}

}  // namespace onestep
