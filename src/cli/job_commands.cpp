#include "cli/job_commands.h"

#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <thread>
#include <vector>

#include "cli/interrupt.h"
#include "cli/progress_view.h"
#include "cli/text.h"
#include "common/durable_file.h"
#include "common/error.h"
#include "common/time_text.h"

namespace onestep {
namespace {

using nlohmann::json;

std::string text_at(const json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return "";
  return found->is_string() ? found->get<std::string>() : found->dump();
}

std::string attempts_text(const json& job) {
  const auto attempts = job.find("attempts");
  if (attempts == job.end()) return "";
  return attempts->is_array() ? std::to_string(attempts->size()) : attempts->dump();
}

// "!2": so many hold.
std::string alarms_text(const json& job) {
  const int number = job.value("num_alarms", 0);
  return number > 0 ? "!" + std::to_string(number) : "-";
}

// Sends a command about a job; prints the new state and its reason, or the whole answer.
void command_job(const Client& client, const std::string& job, const std::string& verb, const std::string& done,
                 bool as_json) {
  const json answer = client.post(job_target(job, "/" + verb));
  if (as_json) {
    std::cout << answer.dump() << "\n";
    return;
  }
  const std::string state = text_at(answer, "state");
  const std::string reason = text_at(answer, "reason");
  std::cout << job << ": " << done << (state.empty() ? "" : "; now " + state)
            << (reason.empty() ? "" : " (" + reason + ")") << "\n";
}

// How far the log of one attempt is read; attempt 0: the newest, whichever that is.
struct LogPlace {
  int attempt = 0;
  std::string offset = "0";
};

void print_text(const LogsOptions& options, int attempt, const std::string& text) {
  if (options.json) {
    const json line = {{"job", options.job}, {"attempt", attempt}, {"rank", options.rank}, {"text", text}};
    std::cout << line.dump(-1, ' ', false, json::error_handler_t::replace) << std::endl;
  } else {
    std::cout << text << std::flush;
  }
}

// Prints what was written since the last call, and moves on.
void print_new_text(const Client& client, const LogsOptions& options, LogPlace& place) {
  for (bool more = true; more;) {
    std::string target = "/logs?rank=" + percent_encode(options.rank) + "&offset=" + place.offset + "&limit=65536";
    if (place.attempt > 0) target += "&attempt=" + std::to_string(place.attempt);
    const ClientResponse answer = client.request("GET", job_target(options.job, target));
    const auto next = answer.headers.find("x-next-offset");
    const auto attempt = answer.headers.find("x-attempt");
    if (next == answer.headers.end() || attempt == answer.headers.end()) {
      throw Error(ErrorCode::kUnavailable, to_string(client.url()) + ": logs without X-Next-Offset and X-Attempt");
    }
    more = next->second != place.offset && !answer.body.empty();
    place.offset = next->second;
    place.attempt = std::stoi(attempt->second);
    if (answer.body.empty()) return;
    print_text(options, place.attempt, answer.body);
  }
}

// Rank 0's log as events bring it, from the newest attempt's beginning until the job ends; goes on when a coordinator that is
// away comes back.
void follow_log(const Client& client, const LogsOptions& options, const json& job) {
  const std::string target = job_target(options.job, "/events?types=log,state");
  std::string last_id = text_at(job, "last_event_id");
  if (const std::size_t newest = job.at("attempts").size(); newest > 0) last_id.append(".").append(std::to_string(newest)).append(".0");
  bool ended = false;
  for (auto heard = std::chrono::steady_clock::now(); !ended;) {
    try {
      client.stream(target, last_id, [&](const ServerEvent& event) {
        heard = std::chrono::steady_clock::now();
        if (event.type != "log" && event.type != "state") return true;
        const json body = body_of(event);
        last_id = event.id;
        if (event.type == "log") print_text(options, body.at("attempt"), body.at("text"));
        ended = event.type == "state" && has_ended(text_at(body, "state"));
        return !ended;
      });
    } catch (const Error& error) {
      const auto away = std::chrono::steady_clock::now() - heard;
      if (error.code() != ErrorCode::kUnavailable || away > std::chrono::seconds(60)) throw;
    }
    if (!ended) std::this_thread::sleep_for(std::chrono::milliseconds(500));
  }
}

using Rows = std::vector<std::vector<std::string>>;

// A list of names as people write it.
std::string shown(const json& value) {
  if (!value.is_array()) return value.is_string() ? value.get<std::string>() : value.dump();
  std::string list;
  for (const json& item : value) list += (list.empty() ? "" : ", ") + shown(item);
  return list;
}

void add_fields(Rows& rows, const json& object, const std::vector<const char*>& keys) {
  for (const char* key : keys) {
    const auto found = object.find(key);
    if (found == object.end() || found->is_null()) continue;
    if (const std::string value = shown(*found); !value.empty()) rows.push_back({key, value});
  }
}

void add_times(Rows& rows, const json& job) {
  const auto time = [&](const char* key) { return job.contains(key) && job[key].is_number() ? job[key].get<double>() : 0.0; };
  for (const char* key : {"created", "started"}) {
    if (time(key) > 0) rows.push_back({key, utc_text(time(key))});
  }
  if (time("ended") == 0) return;
  const std::string took = time("started") > 0 ? ", after " + clock_time(time("ended") - time("started")) : "";
  rows.push_back({"ended", utc_text(time("ended")) + took});
}

// Figures a line each; what is made of several, as JSON.
void print_result(const json& result) {
  Rows rows;
  for (const auto& [key, value] : result.items()) rows.push_back({"  " + key, value.is_string() ? value.get<std::string>() : value.dump()});
  std::cout << "result\n" << table(rows, 2);
}

}  // namespace

std::string job_target(const std::string& job, const std::string& rest) {
  return "/api/v1/jobs/" + percent_encode(job) + rest;
}

bool has_ended(const std::string& state) {
  return state == "succeeded" || state == "failed" || state == "cancelled" || state == "interrupted" ||
         state == "blocked";
}

void list_jobs(const Client& client, const std::string& state, const std::string& pipeline, bool as_json) {
  json items = json::array();
  std::string token;
  do {
    std::string target = "/api/v1/jobs?limit=200";
    if (!state.empty()) target += "&state=" + percent_encode(state);
    if (!pipeline.empty()) target += "&pipeline=" + percent_encode(pipeline);
    if (!token.empty()) target += "&page_token=" + percent_encode(token);
    const json page = client.get(target);
    for (const json& item : page.at("items")) items.push_back(item);
    token = text_at(page, "next_page_token");
  } while (!token.empty());
  if (as_json) {
    std::cout << json{{"items", items}}.dump() << "\n";
    return;
  }
  if (items.empty()) {
    std::cout << "no jobs" << (state.empty() ? "" : " in state " + state) << (pipeline.empty() ? "" : " of pipeline " + pipeline) << "\n";
    return;
  }
  const bool colours = wants_colours(::isatty(STDOUT_FILENO) == 1, std::getenv("NO_COLOR"), std::getenv("TERM"));
  std::vector<std::vector<std::string>> rows = {{"JOB", "KIND", "PIPELINE", "STATE", "ALARMS", "ATTEMPTS", "DIGEST", "REASON"}};
  for (const json& job : items) {
    rows.push_back({text_at(job, "id"), text_at(job, "kind"), text_at(job, "pipeline"),
                    coloured_state(text_at(job, "state"), colours), alarms_text(job),
                    attempts_text(job), text_at(job, "digest").substr(0, 12), text_at(job, "reason")});
  }
  std::cout << table(rows, rows[0].size());
}

void show_job(const Client& client, const std::string& job, bool as_json) {
  const json answer = client.get(job_target(job));
  if (as_json) {
    std::cout << answer.dump() << "\n";
    return;
  }
  Rows rows;
  add_fields(rows, answer, {"id", "name", "kind", "pipeline", "parent", "after", "state", "reason"});
  add_times(rows, answer);
  add_fields(rows, answer, {"digest", "run_folder"});
  std::cout << table(rows, 2);
  if (answer.contains("progress") && answer["progress"].is_object() && answer.value("state", "") == "running") {
    std::cout << job_line(answer, 0, 160) << "\n";
  }
  for (const json& alarm : answer.value("alarms", json::array())) {
    std::cout << alarm_line(alarm) << "\n";
    if (const std::string hint = text_at(alarm, "hint"); !hint.empty()) std::cout << "  " << hint << "\n";
  }
  if (answer.contains("attempts") && answer["attempts"].is_array()) {
    for (const json& attempt : answer["attempts"]) {
      const std::string reason = text_at(attempt, "reason"), ended_as = text_at(attempt, "state");
      std::cout << "attempt " << text_at(attempt, "number") << ": " << ended_as
                << (reason.empty() || reason == ended_as ? "" : ": " + reason) << "\n";
    }
  }
  if (answer.contains("result") && answer["result"].is_object() && !answer["result"].empty()) {
    print_result(answer["result"]);
  }
}

void cancel_job(const Client& client, const std::string& job, bool as_json) {
  command_job(client, job, "cancel", "cancelling", as_json);
}

void resume_job(const Client& client, const std::string& job, bool as_json) {
  command_job(client, job, "resume", "resumed", as_json);
}

void checkpoint_job(const Client& client, const std::string& job, bool as_json) {
  command_job(client, job, "checkpoints", "asked for a checkpoint", as_json);
}

void save_tensorboard(const Client& client, const std::string& job, const std::string& out, bool as_json) {
  const json known = client.get(job_target(job));
  const std::string id = text_at(known, "id");
  const ClientResponse answer = client.request("GET", job_target(id, "/tensorboard"));
  const std::string folder = std::filesystem::absolute(out).lexically_normal().string() + "/" + id;
  const std::string path = folder + "/events.out.tfevents." + std::to_string(static_cast<std::int64_t>(known.value("created", 0.0))) + "." + id;
  create_folders_durably(folder);
  write_file_durably(path, answer.body);
  if (as_json) {
    std::cout << json{{"job", id}, {"file", path}, {"bytes", answer.body.size()}}.dump() << "\n";
  } else {
    std::cout << "wrote " << path << "; show it with 'tensorboard --logdir " << out << "'\n";
  }
}

void print_logs(const Client& client, const LogsOptions& options) {
  if (options.follow) say_when_interrupted("stopped watching the log; the job goes on");
  if (options.follow && options.rank == "0" && !options.attempt) {
    const json job = client.get(job_target(options.job));
    if (!has_ended(text_at(job, "state"))) {
      follow_log(client, options, job);
      return;
    }
  }
  LogPlace place;
  place.attempt = options.attempt.value_or(0);
  while (true) {
    // State and attempts are read before the text, so that nothing written before the end is missed.
    bool ended = !options.follow;
    int newest = 0;
    if (options.follow) {
      const json job = client.get(job_target(options.job));
      ended = has_ended(text_at(job, "state"));
      newest = static_cast<int>(job.value("attempts", json::array()).size());
    }
    print_new_text(client, options, place);
    // A restarted job writes a log of its own; the one before it was read to its end just now.
    if (!options.attempt && place.attempt > 0 && place.attempt < newest) {
      place = {place.attempt + 1, "0"};
      continue;
    }
    if (ended) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
  }
}

}  // namespace onestep
