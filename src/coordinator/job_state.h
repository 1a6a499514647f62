// The life of a job as a pure state machine: which event leads from which state to which.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace onestep {

enum class JobState {
  kWaiting,   // for the jobs named in `after`
  kBlocked,   // one of those failed or was cancelled; goes on when that one is resumed
  kQueued,    // ready, for slots (or for the end of a restart delay)
  kStarting,  // an attempt is launched, its rank 0 has not said hello
  kRunning,
  kStopping,  // asked to save and end
  kSucceeded,
  kFailed,
  kCancelled,    // may be resumed
  kInterrupted,  // saved and ended without being cancelled; may be resumed
};

enum class JobEvent {
  kDependenciesMet,    // all of `after` succeeded
  kDependencyFailed,   // one of `after` failed, was cancelled or is blocked
  kDependencyResumed,  // none of `after` stands in the way any more
  kLaunch,             // an attempt starts
  kConnected,          // its rank 0 said hello
  kStopRequested,      // by cancel, or because the coordinator ends
  kAttemptSucceeded,
  kAttemptRetried,  // the attempt failed and another one is due
  kAttemptFailed,   // the attempt failed and no other one is due
  kAttemptStopped,  // it ended as asked; the job is interrupted
  kCancelled,       // nothing runs (any more); the job is cancelled
  kResume,
};

// "waiting", "attempt_succeeded", ...: as REST shows them and the database keeps them.
const char* to_string(JobState state);
const char* to_string(JobEvent event);
std::optional<JobState> job_state_from_string(const std::string& name);

const std::vector<JobState>& all_job_states();
const std::vector<JobEvent>& all_job_events();

// nullopt: the event makes no sense in that state.
[[nodiscard]] std::optional<JobState> next_state(JobState state, JobEvent event);

// Succeeded, failed, cancelled: nothing happens any more unless it is resumed.
bool is_terminal(JobState state);
// Starting, running, stopping: an attempt of it is alive or being found dead.
bool is_active(JobState state);

// "attempt 3", for people.
std::string attempt_name(int attempt);

}  // namespace onestep
