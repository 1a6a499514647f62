// What REST takes and answers: one table, from which requests are checked and the OpenAPI document is made.
#pragma once

#include <nlohmann/json.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "coordinator/access_tokens.h"
#include "coordinator/request_query.h"

namespace onestep {

struct Parameter {
  enum class Kind { kText, kInteger, kChoice, kChoices };  // kChoices: some, with commas between
  std::string name;
  Kind kind = Kind::kText;
  std::string what;
  std::int64_t min = 0;
  std::int64_t max = 0;
  std::vector<std::string> choices = {};
  std::optional<std::int64_t> usual = std::nullopt;  // an integer's value where none is given
  std::string pattern = {};                          // of a text: a regular expression for all of it; "": any
};

struct Answer {
  int status = 200;
  std::string what;
  std::string schema = {};        // component; "": no body
  std::string content_type = "application/json";
  std::vector<std::string> headers = {};
};

struct Operation {
  std::string id;      // operationId, and what the API finds its handler by
  std::string method;
  std::string path;    // "{id}" stands for one segment
  std::optional<Role> role;  // that a caller needs; null: open to all
  std::string what;
  std::vector<Parameter> query = {};
  std::string body = {};      // component of a JSON body; "": none is read
  bool idempotency_key = false;
  std::vector<Answer> answers = {};
  std::vector<int> problems = {};  // statuses with a problem document, besides those of every operation
};

constexpr std::int64_t kMaxCurvePoints = 100'000;  // of one curve in one answer

const std::vector<Operation>& operations();

// Every field of the query against the operation's table: unknown ones, types, ranges. Errors: RequestError.
void check_query(const Operation& operation, RequestQuery& query);

// OpenAPI 3.1. `version` is the program's.
nlohmann::ordered_json openapi_document(const std::string& version);

// "/api/v1/jobs/{id}" takes "/api/v1/jobs/a%20b": the decoded segments in order; nullopt when it does not.
std::optional<std::vector<std::string>> match_path(const std::string& pattern, const std::string& path);

}  // namespace onestep
