#include "cli/server_events.h"

#include "common/error.h"

namespace onestep {

nlohmann::json body_of(const ServerEvent& event) {
  nlohmann::json body = nlohmann::json::parse(event.data, nullptr, false);
  if (!body.is_object()) throw Error(ErrorCode::kUnavailable, "an event of the coordinator is no JSON object");
  return body;
}

void ServerEventParser::feed(std::string_view bytes, const std::function<void(const ServerEvent&)>& on_event) {
  while (!bytes.empty()) {
    const std::size_t end = bytes.find('\n');
    line_ += bytes.substr(0, end);
    if (end == std::string_view::npos) return;
    bytes.remove_prefix(end + 1);
    if (!line_.empty() && line_.back() == '\r') line_.pop_back();
    const std::string line = std::move(line_);
    line_.clear();
    take_line(line, on_event);
  }
}

void ServerEventParser::take_line(std::string_view line, const std::function<void(const ServerEvent&)>& on_event) {
  if (line.empty()) {  // the end of an event
    const ServerEvent event{id_, type_.empty() ? "message" : type_, data_};
    const bool complete = has_data_;
    type_.clear();
    data_.clear();
    has_data_ = false;
    if (complete) on_event(event);
    return;
  }
  if (line.front() == ':') {
    on_event({id_, "", ""});
    return;
  }
  const std::size_t colon = line.find(':');
  const std::string_view field = line.substr(0, colon);
  std::string_view value = colon == std::string_view::npos ? "" : line.substr(colon + 1);
  if (!value.empty() && value.front() == ' ') value.remove_prefix(1);
  if (field == "id") id_ = value;
  if (field == "event") type_ = value;
  if (field == "data") {
    if (has_data_) data_ += '\n';
    data_ += value;
    has_data_ = true;
  }
}

}  // namespace onestep
