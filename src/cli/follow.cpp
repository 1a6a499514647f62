#include "cli/follow.h"

#include <algorithm>
#include <optional>
#include <set>

#include "cli/progress_view.h"
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

}  // namespace

FollowResult follow_pipeline(const FollowHooks& hooks, ProgressView& view, const FollowOptions& options) {
  static const std::set<std::string> kMoving = {"queued", "starting", "running", "stopping"};
  std::optional<double> away_since;
  double moved_at = hooks.now_s();
  while (true) {
    std::optional<json> pipeline;
    try {
      pipeline = hooks.fetch();
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kUnavailable) throw;
      if (!away_since) {
        away_since = hooks.now_s();
        view.note(std::string("the coordinator does not answer, trying again: ") + error.what());
      }
      if (hooks.now_s() - *away_since > options.away_limit_s) throw;
    }
    if (pipeline) {
      if (away_since) view.note("the coordinator is back");
      if (away_since) moved_at = hooks.now_s();
      away_since.reset();
      FollowResult result{own_jobs(*pipeline), false};
      view.show(result.jobs);
      const auto ended = [](const json& job) { return has_state(job, ended_states()); };
      if (std::all_of(result.jobs.begin(), result.jobs.end(), ended)) {
        result.succeeded = std::all_of(result.jobs.begin(), result.jobs.end(),
                                       [](const json& job) { return job.value("state", "") == "succeeded"; });
        return result;
      }
      const auto moving = [](const json& job) { return has_state(job, kMoving); };
      if (std::any_of(result.jobs.begin(), result.jobs.end(), moving)) moved_at = hooks.now_s();
      if (hooks.now_s() - moved_at > options.stuck_limit_s) {
        throw Error(ErrorCode::kJobFailed, "jobs are waiting and nothing runs; see 'onestep jobs'");
      }
    }
    hooks.sleep_s(options.poll_s);
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

}  // namespace onestep
