#include "coordinator/job_state.h"

#include <gtest/gtest.h>

#include <map>
#include <utility>

namespace onestep {
namespace {

using S = JobState;
using E = JobEvent;

// Every legal transition; whatever is not here is illegal.
const std::map<std::pair<S, E>, S> kLegal = {
    {{S::kWaiting, E::kDependenciesMet}, S::kQueued},
    {{S::kWaiting, E::kDependencyFailed}, S::kBlocked},
    {{S::kWaiting, E::kCancelled}, S::kCancelled},
    {{S::kBlocked, E::kDependencyResumed}, S::kWaiting},
    {{S::kBlocked, E::kCancelled}, S::kCancelled},
    {{S::kQueued, E::kLaunch}, S::kStarting},
    {{S::kQueued, E::kCancelled}, S::kCancelled},
    {{S::kStarting, E::kConnected}, S::kRunning},
    {{S::kStarting, E::kStopRequested}, S::kStopping},
    {{S::kStarting, E::kAttemptSucceeded}, S::kSucceeded},
    {{S::kStarting, E::kAttemptRetried}, S::kQueued},
    {{S::kStarting, E::kAttemptFailed}, S::kFailed},
    {{S::kStarting, E::kAttemptStopped}, S::kInterrupted},
    {{S::kRunning, E::kStopRequested}, S::kStopping},
    {{S::kRunning, E::kAttemptSucceeded}, S::kSucceeded},
    {{S::kRunning, E::kAttemptRetried}, S::kQueued},
    {{S::kRunning, E::kAttemptFailed}, S::kFailed},
    {{S::kRunning, E::kAttemptStopped}, S::kInterrupted},
    {{S::kStopping, E::kAttemptSucceeded}, S::kSucceeded},
    {{S::kStopping, E::kAttemptFailed}, S::kFailed},
    {{S::kStopping, E::kAttemptStopped}, S::kInterrupted},
    {{S::kStopping, E::kCancelled}, S::kCancelled},
    {{S::kFailed, E::kResume}, S::kWaiting},
    {{S::kCancelled, E::kResume}, S::kWaiting},
    {{S::kInterrupted, E::kResume}, S::kWaiting},
    {{S::kInterrupted, E::kCancelled}, S::kCancelled},
};

TEST(JobState, EveryPairOfStateAndEventIsLegalOrRefused) {
  ASSERT_EQ(all_job_states().size(), 10U);
  ASSERT_EQ(all_job_events().size(), 12U);
  for (const S state : all_job_states()) {
    for (const E event : all_job_events()) {
      const auto expected = kLegal.find({state, event});
      const std::optional<S> found = next_state(state, event);
      const std::string where = std::string(to_string(state)) + " + " + to_string(event);
      if (expected == kLegal.end()) {
        EXPECT_FALSE(found) << where << " leads to " << to_string(*found);
      } else {
        ASSERT_TRUE(found) << where;
        EXPECT_STREQ(to_string(*found), to_string(expected->second)) << where;
      }
    }
  }
}

TEST(JobState, NamesReadBackAndAreUnique) {
  for (const S state : all_job_states()) {
    EXPECT_EQ(job_state_from_string(to_string(state)), state);
  }
  EXPECT_FALSE(job_state_from_string("unknown"));
  EXPECT_FALSE(job_state_from_string("Running"));
}

TEST(JobState, ActiveAndTerminalStatesHoldApart) {
  std::string active;
  std::string terminal;
  for (const S state : all_job_states()) {
    if (is_active(state)) active += std::string(to_string(state)) + " ";
    if (is_terminal(state)) terminal += std::string(to_string(state)) + " ";
  }
  EXPECT_EQ(active, "starting running stopping ");
  EXPECT_EQ(terminal, "succeeded failed cancelled ");
}

}  // namespace
}  // namespace onestep
