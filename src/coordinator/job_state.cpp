#include "coordinator/job_state.h"

#include <array>
#include <utility>

namespace onestep {
namespace {

constexpr std::array<std::pair<JobState, const char*>, 10> kStateNames = {{
    {JobState::kWaiting, "waiting"},
    {JobState::kBlocked, "blocked"},
    {JobState::kQueued, "queued"},
    {JobState::kStarting, "starting"},
    {JobState::kRunning, "running"},
    {JobState::kStopping, "stopping"},
    {JobState::kSucceeded, "succeeded"},
    {JobState::kFailed, "failed"},
    {JobState::kCancelled, "cancelled"},
    {JobState::kInterrupted, "interrupted"},
}};

constexpr std::array<std::pair<JobEvent, const char*>, 12> kEventNames = {{
    {JobEvent::kDependenciesMet, "dependencies_met"},
    {JobEvent::kDependencyFailed, "dependency_failed"},
    {JobEvent::kDependencyResumed, "dependency_resumed"},
    {JobEvent::kLaunch, "launch"},
    {JobEvent::kConnected, "connected"},
    {JobEvent::kStopRequested, "stop_requested"},
    {JobEvent::kAttemptSucceeded, "attempt_succeeded"},
    {JobEvent::kAttemptRetried, "attempt_retried"},
    {JobEvent::kAttemptFailed, "attempt_failed"},
    {JobEvent::kAttemptStopped, "attempt_stopped"},
    {JobEvent::kCancelled, "cancelled"},
    {JobEvent::kResume, "resume"},
}};

// What is possible while an attempt exists, whether or not its ranks have connected.
std::optional<JobState> next_state_of_attempt(JobEvent event) {
  switch (event) {
    case JobEvent::kStopRequested:
      return JobState::kStopping;
    case JobEvent::kAttemptSucceeded:
      return JobState::kSucceeded;
    case JobEvent::kAttemptRetried:
      return JobState::kQueued;
    case JobEvent::kAttemptFailed:
      return JobState::kFailed;
    case JobEvent::kAttemptStopped:
      return JobState::kInterrupted;
    default:
      return std::nullopt;
  }
}

}  // namespace

const char* to_string(JobState state) {
  for (const auto& [known, name] : kStateNames) {
    if (known == state) return name;
  }
  return "unknown";
}

const char* to_string(JobEvent event) {
  for (const auto& [known, name] : kEventNames) {
    if (known == event) return name;
  }
  return "unknown";
}

std::optional<JobState> job_state_from_string(const std::string& name) {
  for (const auto& [state, known] : kStateNames) {
    if (known == name) return state;
  }
  return std::nullopt;
}

const std::vector<JobState>& all_job_states() {
  static const std::vector<JobState> states = [] {
    std::vector<JobState> all;
    for (const auto& [state, name] : kStateNames) all.push_back(state);
    return all;
  }();
  return states;
}

const std::vector<JobEvent>& all_job_events() {
  static const std::vector<JobEvent> events = [] {
    std::vector<JobEvent> all;
    for (const auto& [event, name] : kEventNames) all.push_back(event);
    return all;
  }();
  return events;
}

std::optional<JobState> next_state(JobState state, JobEvent event) {
  switch (state) {
    case JobState::kWaiting:
      if (event == JobEvent::kDependenciesMet) return JobState::kQueued;
      if (event == JobEvent::kDependencyFailed) return JobState::kBlocked;
      if (event == JobEvent::kCancelled) return JobState::kCancelled;
      return std::nullopt;
    case JobState::kBlocked:
      if (event == JobEvent::kDependencyResumed) return JobState::kWaiting;
      if (event == JobEvent::kCancelled) return JobState::kCancelled;
      return std::nullopt;
    case JobState::kQueued:
      if (event == JobEvent::kLaunch) return JobState::kStarting;
      if (event == JobEvent::kCancelled) return JobState::kCancelled;
      return std::nullopt;
    case JobState::kStarting:
      if (event == JobEvent::kConnected) return JobState::kRunning;
      return next_state_of_attempt(event);
    case JobState::kRunning:
      return next_state_of_attempt(event);
    case JobState::kStopping:
      // A retry makes no sense for what was asked to end; a second request changes nothing.
      if (event == JobEvent::kCancelled) return JobState::kCancelled;
      if (event == JobEvent::kAttemptRetried || event == JobEvent::kStopRequested) {
        return std::nullopt;
      }
      return next_state_of_attempt(event);
    case JobState::kInterrupted:
      if (event == JobEvent::kCancelled) return JobState::kCancelled;
      [[fallthrough]];
    case JobState::kFailed:
    case JobState::kCancelled:
      // Whether it may run at once is decided from its dependencies, as for a new job.
      if (event == JobEvent::kResume) return JobState::kWaiting;
      return std::nullopt;
    case JobState::kSucceeded:
      return std::nullopt;
  }
  return std::nullopt;
}

bool is_terminal(JobState state) {
  return state == JobState::kSucceeded || state == JobState::kFailed ||
         state == JobState::kCancelled;
}

bool is_active(JobState state) {
  return state == JobState::kStarting || state == JobState::kRunning ||
         state == JobState::kStopping;
}

std::string attempt_name(int attempt) { return "attempt " + std::to_string(attempt); }

}  // namespace onestep
