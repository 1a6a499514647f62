// What the handlers of the API share: a request on its way through one, and the shapes of answers.
#pragma once

#include <nlohmann/json.hpp>

#include <string>
#include <vector>

#include "coordinator/api.h"
#include "coordinator/request_query.h"

namespace onestep {

// One request on its way through a handler; its query is checked.
struct Api::Call {
  const HttpRequest& request;
  const Operation& operation;
  const Caller& caller;
  const std::vector<std::string>& segments;  // of the path, those between braces
  RequestQuery query;

  [[nodiscard]] const std::string& id() const { return segments.at(0); }
  // An integer of the query, or what the operation's table says is usual.
  [[nodiscard]] std::int64_t integer(const std::string& name) {
    for (const Parameter& parameter : operation.query) {
      if (parameter.name == name) return query.integer(name, parameter.usual.value_or(0), parameter.min, parameter.max);
    }
    throw Error(ErrorCode::kInternal, operation.id + ": the table has no field " + name);
  }
};

namespace api {

inline HttpResponse json_response(int status, const nlohmann::ordered_json& body) {
  HttpResponse response;
  response.status = status;
  // Reasons quote what programs printed, which need not be valid UTF-8.
  response.body = body.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
  return response;
}

template <class Records, class View>
nlohmann::ordered_json items(const Records& records, View view) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const auto& record : records) list.push_back(view(record));
  return list;
}

// The records after page_token, at most limit of them, in ascending order of `key`; where the next page begins.
template <class Call, class Record, class Key, class View>
HttpResponse page(Call& call, const std::vector<Record>& records, Key key, View view, nlohmann::ordered_json more = {}) {
  const std::int64_t after = call.integer("page_token"), limit = call.integer("limit");
  nlohmann::ordered_json list = nlohmann::ordered_json::array(), token, next;
  std::int64_t last = after;
  for (const Record& record : records) {
    const std::int64_t number = key(record);
    if (number <= after) continue;
    if (static_cast<std::int64_t>(list.size()) == limit) {
      token = std::to_string(last);
      break;
    }
    list.push_back(view(record));
    last = number;
  }
  if (!token.is_null()) {
    std::string target = call.request.target.substr(0, call.request.target.find('?')) + "?page_token=" + std::to_string(last);
    for (const auto& [name, value] : call.query.fields()) {
      if (name != "page_token") target += "&" + percent_encode(name) + "=" + percent_encode(value);
    }
    next = target;
  }
  nlohmann::ordered_json body = {{"items", std::move(list)}, {"next_page_token", token}, {"next", next}};
  for (const auto& [name, value] : more.items()) body[name] = value;
  HttpResponse response = json_response(200, body);
  if (!next.is_null()) response.headers["Link"] = "<" + next.template get<std::string>() + ">; rel=\"next\"";
  return response;
}

}  // namespace api
}  // namespace onestep
