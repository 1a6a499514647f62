#include "cli/follow.h"

#include <algorithm>
#include <optional>
#include <set>

#include "cli/progress_view.h"
#include "cli/server_events.h"
#include "cli/text.h"
#include "common/error.h"

namespace onestep {
namespace {

using nlohmann::json;

// `blocked` ends too: what it waited for has failed, and only a person can resume that.
const std::set<std::string>& ended_states() {
  static const std::set<std::string> states = {"succeeded", "failed", "cancelled", "interrupted", "blocked"};
  return states;
}

std::vector<json> own_jobs(const json& pipeline) {
  std::vector<json> jobs;
  if (!pipeline.is_object() || !pipeline.contains("jobs") || !pipeline["jobs"].is_array()) {
    throw Error(ErrorCode::kUnavailable, "the coordinator's answer has no list of jobs");
  }
  for (const json& job : pipeline["jobs"]) {
    const auto parent = job.find("parent");
    const bool automatic = parent != job.end() && parent->is_string() && !parent->get<std::string>().empty();
    if (!automatic) jobs.push_back(job);
  }
  return jobs;
}

bool has_state(const json& job, const std::set<std::string>& states) {
  return states.contains(job.value("state", ""));
}

// What is known of the pipeline: one snapshot, and every event after it. A coordinator that was away is asked for the
// events after the last one heard, so nothing is missed.
class Watch {
 public:
  Watch(const FollowHooks& hooks, ProgressView& view, const FollowOptions& options)
      : hooks_(hooks), view_(view), options_(options), moved_at_(hooks.now_s()) {}

  [[nodiscard]] bool has_begun() const { return begun_; }
  void begin() {
    const json pipeline = hooks_.fetch();
    jobs_ = own_jobs(pipeline);
    last_event_ = pipeline.value("last_event_id", "");
    begun_ = true;
    note_presence();
    view_.show(jobs_);
  }
  void listen() {
    hooks_.stream(last_event_, [this](const ServerEvent& event) {
      note_presence();
      take(event);
      check_movement();
      return !is_over();
    });
    // An end without a word is a coordinator that stops.
    if (!is_over()) throw Error(ErrorCode::kUnavailable, "the coordinator has closed the connection");
  }
  void note_absence(const Error& error) {
    if (!away_since_) {
      away_since_ = hooks_.now_s();
      view_.note(std::string("the coordinator does not answer, trying again: ") + error.what());
    }
    if (hooks_.now_s() - *away_since_ > options_.away_limit_s) throw Error(error);
  }
  [[nodiscard]] bool is_over() const {
    return begun_ && std::all_of(jobs_.begin(), jobs_.end(),
                                 [](const json& job) { return has_state(job, ended_states()); });
  }
  [[nodiscard]] FollowResult result() const {
    return {jobs_, std::all_of(jobs_.begin(), jobs_.end(),
                               [](const json& job) { return job.value("state", "") == "succeeded"; })};
  }

 private:
  void take(const ServerEvent& event) {
    if (event.type != "state" && event.type != "progress" && event.type != "alarm") return;
    const json body = body_of(event);
    last_event_ = event.id;
    if (event.type == "alarm") {
      view_.note(body.value("job", "") + ": " + alarm_line(body));
      return;
    }
    for (json& job : jobs_) {
      if (job.value("id", "") != body.value("job", "?")) continue;
      if (event.type == "progress") {
        job["progress"] = body;
      } else {
        const json progress = job.value("progress", json());
        job = body;
        job["progress"] = progress;
      }
      view_.show(jobs_);
    }
  }
  void note_presence() {
    if (!away_since_) return;
    view_.note("the coordinator is back");
    away_since_.reset();
    moved_at_ = hooks_.now_s();
  }
  void check_movement() {
    static const std::set<std::string> kMoving = {"queued", "starting", "running", "stopping"};
    const auto moving = [](const json& job) { return has_state(job, kMoving); };
    if (std::any_of(jobs_.begin(), jobs_.end(), moving)) moved_at_ = hooks_.now_s();
    if (!is_over() && hooks_.now_s() - moved_at_ > options_.stuck_limit_s) {
      throw Error(ErrorCode::kJobFailed, "jobs are waiting and nothing runs; see 'onestep jobs'");
    }
  }

  const FollowHooks& hooks_;
  ProgressView& view_;
  const FollowOptions& options_;
  bool begun_ = false;
  std::vector<json> jobs_;
  std::string last_event_;
  std::optional<double> away_since_;
  double moved_at_;
};

}  // namespace

FollowResult follow_pipeline(const FollowHooks& hooks, ProgressView& view, const FollowOptions& options) {
  Watch watch(hooks, view, options);
  while (true) {
    try {
      if (!watch.has_begun()) watch.begin();
      if (!watch.is_over()) watch.listen();
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kUnavailable) throw;
      watch.note_absence(error);
    }
    if (watch.is_over()) return watch.result();
    hooks.sleep_s(options.retry_s);
  }
}

nlohmann::ordered_json follow_summary(const FollowResult& result) {
  nlohmann::ordered_json jobs = nlohmann::ordered_json::array();
  for (const json& job : result.jobs) {
    const json attempts = job.value("attempts", json(0));
    jobs.push_back({{"name", job.value("name", "")},
                    {"kind", job.value("kind", "")},
                    {"state", job.value("state", "")},
                    {"attempts", attempts.is_array() ? json(attempts.size()) : attempts},
                    {"digest", job.contains("digest") && job["digest"].is_string() ? job["digest"] : json("")}});
  }
  return {{"jobs", jobs}};
}

std::vector<std::string> failure_lines(const FollowResult& result) {
  std::vector<std::string> lines;
  for (const json& job : result.jobs) {
    if (job.value("state", "") == "succeeded") continue;
    const std::string reason =
        job.contains("reason") && job["reason"].is_string() ? job["reason"].get<std::string>() : "";
    lines.push_back(job.value("name", "") + ": " + job.value("state", "") + (reason.empty() ? "" : ": " + reason));
  }
  return lines;
}

std::string success_line(const FollowResult& result, const std::string& pipeline) {
  double first = 0, last = 0;
  for (const json& job : result.jobs) {
    const auto time = [&](const char* key) { return job.contains(key) && job[key].is_number() ? job[key].get<double>() : 0.0; };
    if (time("started") > 0 && (first == 0 || time("started") < first)) first = time("started");
    last = std::max(last, time("ended"));
  }
  const std::size_t count = result.jobs.size();
  return pipeline + ": " + std::to_string(count) + (count == 1 ? " job" : " jobs") + " succeeded" +
         (first > 0 && last > first ? " in " + clock_time(last - first) : "");
}

}  // namespace onestep
