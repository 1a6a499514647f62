// Watches a pipeline, by its events, until nothing of it can move any more. Clock, sleep and requests are passed in.
#pragma once

#include <nlohmann/json.hpp>

#include <functional>
#include <string>
#include <vector>

namespace onestep {

class ProgressView;
struct ServerEvent;

struct FollowOptions {
  double retry_s = 0.5;         // between tries to reach a coordinator that is away
  double away_limit_s = 60.0;   // how long the coordinator may be unreachable before that is an error
  double stuck_limit_s = 30.0;  // nothing is done or about to be done for so long: give up
};

struct FollowHooks {
  // GET /pipelines/{id}; throws kUnavailable while the coordinator is away.
  std::function<nlohmann::json()> fetch;
  // The pipeline's events after the one named, until told to end or the coordinator is away (kUnavailable, or a return).
  std::function<void(const std::string& after, const std::function<bool(const ServerEvent&)>& on_event)> stream;
  std::function<double()> now_s;          // monotonic
  std::function<void(double)> sleep_s;
};

struct FollowResult {
  std::vector<nlohmann::json> jobs;  // summaries in file order, no automatic evaluations
  bool succeeded = false;            // all of them
};

// Errors: kUnavailable after away_limit_s; kJobFailed when jobs wait and nothing runs for stuck_limit_s; whatever
// else fetch throws.
FollowResult follow_pipeline(const FollowHooks& hooks, ProgressView& view, const FollowOptions& options);

// {"jobs":[{name, kind, state, attempts, digest}, ...]}: the last line of `submit --follow --json`.
nlohmann::ordered_json follow_summary(const FollowResult& result);
// "distill: failed: out of memory", one for each job that did not succeed.
std::vector<std::string> failure_lines(const FollowResult& result);
// "digits-p1: 11 jobs succeeded in 8:27", from the first one's start to the last one's end.
std::string success_line(const FollowResult& result, const std::string& pipeline);

}  // namespace onestep
