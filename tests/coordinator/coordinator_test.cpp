// The coordinator with processes and a clock that the tests make up; what it writes to disk is
// real.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <cmath>
#include <filesystem>

#include "coordinator/coordinator_fixture.h"

namespace onestep {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

TEST_F(CoordinatorTest, APipelineRunsInItsOrder) {
  const PipelineRecord pipeline = submit({kDetector, kTeacher, kPairs, kDistill});
  EXPECT_THAT(pipeline.jobs, ElementsAre("detector-1", "teacher-2", "pairs-3", "distill-4"));
  EXPECT_EQ(state("pairs-3"), "waiting");
  EXPECT_EQ(job("pairs-3").reason, "waits for teacher-2, which is queued");
  tick();
  EXPECT_THAT(machine_.launched(), ElementsAre("detector-1 a1", "teacher-2 a1"));
  EXPECT_EQ(state("teacher-2"), "starting");
  EXPECT_FALSE(hello("teacher-2", 1).refusal);
  EXPECT_EQ(state("teacher-2"), "running");
  succeed("teacher-2");
  EXPECT_EQ(state("teacher-2"), "succeeded");
  EXPECT_EQ(job("teacher-2").digest, std::string(64, 'd'));
  EXPECT_EQ(state("pairs-3"), "queued");
  EXPECT_EQ(job("pairs-3").reason, "waits for 2 slots; 1 of 2 free");
  succeed("detector-1");
  EXPECT_THAT(machine_.launched(), SizeIs(3));
  succeed("pairs-3");
  succeed("distill-4");
  EXPECT_EQ(state("distill-4"), "succeeded");
  EXPECT_TRUE(coordinator_->idle());
}

TEST_F(CoordinatorTest, TheWorkerGetsAResolvedSpec) {
  run_distill();
  const std::string run = coordinator_->run_folder("distill-4");
  const json spec = read_json_file(job_file(run));
  EXPECT_EQ(spec["teacher"], coordinator_->run_folder("teacher-2"));
  EXPECT_EQ(spec["pairs"], coordinator_->run_folder("pairs-3"));
  EXPECT_EQ(spec["evaluation"]["detector"], coordinator_->run_folder("detector-1"));
  EXPECT_EQ(spec["output"], run);
  EXPECT_EQ(spec["name"], "distill");
  EXPECT_EQ(spec, coordinator_->worker_spec("distill"));
  const LaunchRequest& request = machine_.of("distill-4", 1).request;
  EXPECT_EQ(request.run_folder, run);
  EXPECT_EQ(request.coordinator_file, folder_ / "data/coordinator.address");
  EXPECT_FALSE(request.background);
}

TEST_F(CoordinatorTest, ASpecMayNameItsRunFolder) {
  json teacher = kTeacher;
  teacher["output"] = "runs/teacher";
  submit({teacher, kPairs});
  const std::string run = folder_ / "runs/teacher";
  EXPECT_EQ(coordinator_->run_folder("teacher-1"), run);
  EXPECT_TRUE(file_exists(job_file(run))) << "the folder is taken from now on";
  EXPECT_EQ(coordinator_->worker_spec("pairs-2")["teacher"], run);
  tick();
  EXPECT_EQ(machine_.of("teacher-1", 1).request.run_folder, run);
  succeed("teacher-1");
  EXPECT_EQ(state("teacher-1"), "succeeded");
  EXPECT_FALSE(file_exists(folder_ / "data/jobs/teacher-1"));
}

TEST_F(CoordinatorTest, ARunFolderInUseIsRefusedAndNothingIsSubmitted) {
  json teacher = kTeacher;
  teacher["output"] = "runs/teacher";
  submit({teacher});
  try {
    submit({kDetector, teacher});
    FAIL() << "one folder, two jobs";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kConflict);
    EXPECT_THAT(error.what(), HasSubstr(folder_ / "runs/teacher: expected a new or empty folder"));
  }
  EXPECT_THAT(coordinator_->jobs({}), SizeIs(1));
}

TEST_F(CoordinatorTest, AnUnknownJobOrPipelineIsNotFound) {
  EXPECT_THROW(coordinator_->job("nobody-1"), Error);
  EXPECT_THROW(coordinator_->pipeline("nothing"), Error);
  EXPECT_THROW(coordinator_->cancel("nobody"), Error);
}

TEST_F(CoordinatorTest, ASecondCoordinatorOfTheFolderIsRefused) {
  try {
    Coordinator second(options(), std::make_unique<FakeLauncher>(machine_));
    FAIL() << "two coordinators of one folder";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kConflict);
    EXPECT_THAT(error.what(), HasSubstr(folder_ / "data"));
  }
}

// --- failures ---

TEST_F(CoordinatorTest, ADeadAttemptIsRestartedAfterAMoment) {
  submit({kTeacher});
  tick();
  hello("teacher-1", 1);
  die("teacher-1", 1);
  EXPECT_EQ(state("teacher-1"), "queued");
  EXPECT_THAT(job("teacher-1").reason, HasSubstr("signal 9"));
  EXPECT_THAT(machine_.launched(), SizeIs(1)) << "not at once";
  tick(0.6);
  EXPECT_THAT(machine_.launched(), ElementsAre("teacher-1 a1", "teacher-1 a2"));
  succeed("teacher-1", 2);
  EXPECT_EQ(state("teacher-1"), "succeeded");
  EXPECT_EQ(job("teacher-1").attempts, 2);
  const std::vector<AttemptRecord> attempts = coordinator_->attempts("teacher-1");
  ASSERT_EQ(attempts.size(), 2U);
  EXPECT_EQ(attempts[0].state, "failed");
  EXPECT_THAT(attempts[0].reason, HasSubstr("died without a word"));
  EXPECT_EQ(attempts[1].state, "succeeded");
  const auto written = read_outcome(attempt_outcome_file(coordinator_->run_folder("teacher-1"), 1));
  ASSERT_TRUE(written) << "the coordinator writes the outcome of a dead attempt";
  EXPECT_EQ(written->state, "failed");
}

TEST_F(CoordinatorTest, ThreeAttemptsWithoutProgressAreTheEnd) {
  submit({kTeacher});
  for (int attempt = 1; attempt <= 3; ++attempt) {
    tick(2.5);
    die("teacher-1", attempt);
  }
  EXPECT_EQ(state("teacher-1"), "failed");
  EXPECT_THAT(job("teacher-1").reason, HasSubstr("3 attempts without progress"));
  tick(100);
  EXPECT_THAT(machine_.launched(), SizeIs(3));
}

TEST_F(CoordinatorTest, ProgressStartsTheCountAgain) {
  submit({kTeacher});
  std::int64_t iteration = 0;
  for (int attempt = 1; attempt <= 6; ++attempt) {
    tick(2.5);
    // Known from the manifest alone: no telemetry had to arrive.
    if (attempt % 2 == 0) write_checkpoint("teacher-1", iteration += 10, attempt);
    die("teacher-1", attempt);
    EXPECT_EQ(state("teacher-1"), "queued") << attempt;
  }
  EXPECT_THAT(coordinator_->checkpoints("teacher-1"), SizeIs(3));
}

TEST_F(CoordinatorTest, TheSameIterationAgainIsNoProgress) {
  submit({kTeacher});
  for (int attempt = 1; attempt <= 4; ++attempt) {
    tick(2.5);
    write_checkpoint("teacher-1", 10, attempt);
    die("teacher-1", attempt);
  }
  EXPECT_EQ(state("teacher-1"), "failed");
}

TEST_F(CoordinatorTest, AUserErrorIsNotRetried) {
  for (const ErrorCode code : {ErrorCode::kUsage, ErrorCode::kConfig, ErrorCode::kNotFound,
                               ErrorCode::kCorrupt, ErrorCode::kMismatch}) {
    const std::string id = submit({kTeacher}).jobs[0];
    tick();
    end(id, 1, outcome(id, "failed", code));
    EXPECT_EQ(state(id), "failed");
    EXPECT_THAT(job(id).reason, HasSubstr("not retried"));
  }
}

TEST_F(CoordinatorTest, AStopThatNobodyAskedForIsRestarted) {
  // One rank was killed, and mpirun told the others to end: they saved and stopped.
  submit({kTeacher});
  tick();
  hello("teacher-1", 1);
  write_checkpoint("teacher-1", 10, 1);
  end("teacher-1", 1, outcome("teacher-1", "interrupted"));
  EXPECT_EQ(state("teacher-1"), "queued");
  EXPECT_EQ(job("teacher-1").failures, 0);
  tick(1);
  EXPECT_THAT(machine_.launched(), SizeIs(2));
}

TEST_F(CoordinatorTest, AFullDiskIsRetried) {
  submit({kTeacher});
  tick();
  end("teacher-1", 1, outcome("teacher-1", "failed", ErrorCode::kIo));
  EXPECT_EQ(state("teacher-1"), "queued");
}

TEST_F(CoordinatorTest, WhatCannotBeLaunchedFails) {
  machine_.launch_error = Error(ErrorCode::kNotFound, "mpirun: expected a program, found none");
  submit({kTeacher});
  tick();
  EXPECT_EQ(state("teacher-1"), "failed");
  EXPECT_THAT(job("teacher-1").reason, HasSubstr("mpirun: expected a program"));

  machine_.launch_error = Error(ErrorCode::kIo, "fork failed");
  submit({kTeacher});
  for (int i = 0; i < 5; ++i) tick(2.5);
  EXPECT_EQ(state("teacher-2"), "failed");
  EXPECT_EQ(job("teacher-2").attempts, 3);
}

TEST_F(CoordinatorTest, AFinalStateToldIsEnoughWhenThereIsNoFile) {
  submit({kTeacher});
  tick();
  hello("teacher-1", 1);
  const json body = {{"attempt", 1}, {"outcome", to_json(outcome("teacher-1", "succeeded"))}};
  EXPECT_EQ(tell({"teacher-1", 1, 0}, MessageType::kFinalState, body, 1).acknowledge, 1U);
  EXPECT_EQ(state("teacher-1"), "running") << "its processes hold their slots until they are gone";
  die("teacher-1", 1);
  EXPECT_EQ(state("teacher-1"), "succeeded");
}

TEST_F(CoordinatorTest, AnAttemptThatLingersAfterItsEndIsEnded) {
  submit({kTeacher});
  tick();
  hello("teacher-1", 1);
  tell({"teacher-1", 1, 0}, MessageType::kFinalState,
       {{"attempt", 1}, {"outcome", to_json(outcome("teacher-1", "succeeded"))}}, 1);
  tick(29);
  EXPECT_FALSE(machine_.of("teacher-1", 1).terminated);
  tick(2);
  EXPECT_TRUE(machine_.of("teacher-1", 1).terminated);
  tick(4);
  EXPECT_TRUE(machine_.of("teacher-1", 1).killed);
  tick();
  EXPECT_EQ(state("teacher-1"), "succeeded");
}

TEST_F(CoordinatorTest, ABrokenOutcomeFileIsAFailure) {
  submit({kTeacher});
  tick();
  spit(attempt_outcome_file(coordinator_->run_folder("teacher-1"), 1), "{");
  die("teacher-1", 1);
  EXPECT_EQ(state("teacher-1"), "queued");
  EXPECT_THAT(job("teacher-1").reason, HasSubstr("can't be read"));
}

TEST_F(CoordinatorTest, AFullDiskHoldsUpOneJobUntilThereIsRoomAgain) {
  submit({kDetector, kTeacher});
  tick();
  set_fault_hook_for_tests([&](const char* call, const std::string& path) {
    const bool hit =
        std::string(call) == "write" && path.find("detector-1/outcome") != std::string::npos;
    return hit ? ENOSPC : 0;
  });
  machine_.of("detector-1", 1).end = ProcessEnd{false, "mpirun ended by signal 9 (Killed)"};
  spit(attempt_outcome_file(coordinator_->run_folder("teacher-2"), 1),
       to_json(outcome("teacher-2", "succeeded")).dump());
  machine_.of("teacher-2", 1).end = ProcessEnd{true, "mpirun ended"};
  EXPECT_THROW(tick(), Error);
  EXPECT_EQ(state("detector-1"), "starting");
  EXPECT_EQ(state("teacher-2"), "succeeded");
  set_fault_hook_for_tests(nullptr);
  tick();
  EXPECT_EQ(state("detector-1"), "queued");
}

// --- cancel, resume, interrupt ---

TEST_F(CoordinatorTest, CancelAsksWaitsTerminatesAndKills) {
  submit({kTeacher});
  tick();
  hello("teacher-1", 1);
  coordinator_->cancel("teacher-1");
  EXPECT_EQ(state("teacher-1"), "stopping");
  EXPECT_THAT(sent_, ElementsAre("teacher-1 a1 67"));
  EXPECT_EQ(coordinator_->cancel("teacher-1").state, JobState::kStopping) << "repeatable";
  tick(19);
  EXPECT_FALSE(machine_.of("teacher-1", 1).terminated);
  tick(2);
  EXPECT_TRUE(machine_.of("teacher-1", 1).terminated);
  EXPECT_FALSE(machine_.of("teacher-1", 1).killed);
  tick(3.5);
  EXPECT_TRUE(machine_.of("teacher-1", 1).killed);
  tick();
  EXPECT_EQ(state("teacher-1"), "cancelled");
  tick(10);
  EXPECT_THAT(machine_.launched(), SizeIs(1)) << "a cancelled job is not restarted";
}

TEST_F(CoordinatorTest, ACancelledJobIsResumedInANewAttempt) {
  submit({kTeacher});
  tick();
  hello("teacher-1", 1);
  coordinator_->cancel("teacher-1");
  end("teacher-1", 1, outcome("teacher-1", "interrupted"));
  EXPECT_EQ(state("teacher-1"), "cancelled");
  EXPECT_THAT(job("teacher-1").reason, HasSubstr("after saving"));
  coordinator_->resume("teacher-1");
  tick();
  EXPECT_THAT(machine_.launched(), ElementsAre("teacher-1 a1", "teacher-1 a2"));
  succeed("teacher-1", 2);
  EXPECT_EQ(state("teacher-1"), "succeeded");
  EXPECT_THROW(coordinator_->resume("teacher-1"), Error);
  EXPECT_THROW(coordinator_->cancel("teacher-1"), Error);
}

TEST_F(CoordinatorTest, AStopReachesARankThatConnectsLater) {
  submit({kTeacher});
  tick();
  coordinator_->cancel("teacher-1");
  const HelloAnswer answer = hello("teacher-1", 1);
  ASSERT_FALSE(answer.refusal);
  ASSERT_THAT(answer.commands, SizeIs(1));
  EXPECT_EQ(answer.commands[0].type, MessageType::kStop);
  EXPECT_EQ(state("teacher-1"), "stopping");
}

TEST_F(CoordinatorTest, WhatNeverRanIsCancelledAtOnce) {
  submit({kDetector, kTeacher, kPairs});
  coordinator_->cancel("teacher-2");
  EXPECT_EQ(state("teacher-2"), "cancelled");
  EXPECT_EQ(state("pairs-3"), "blocked");
  EXPECT_EQ(coordinator_->cancel("teacher-2").state, JobState::kCancelled) << "repeatable";
  tick();
  EXPECT_THAT(machine_.launched(), ElementsAre("detector-1 a1"));
}

TEST_F(CoordinatorTest, AFinishedJobIsDoneThoughItWasCancelledTooLate) {
  submit({kTeacher});
  tick();
  coordinator_->cancel("teacher-1");
  succeed("teacher-1");
  EXPECT_EQ(state("teacher-1"), "succeeded");
}

TEST_F(CoordinatorTest, StoppingEverythingInterruptsAndStartsNothing) {
  submit({kTeacher, kPairs});
  submit({kTeacher});
  tick();
  hello("teacher-1", 1);
  hello("teacher-3", 1);
  coordinator_->stop_all("the coordinator ends");
  EXPECT_FALSE(coordinator_->idle());
  EXPECT_THAT(sent_, ElementsAre("teacher-1 a1 67", "teacher-3 a1 67"));
  end("teacher-1", 1, outcome("teacher-1", "interrupted"));
  end("teacher-3", 1, outcome("teacher-3", "succeeded"));
  EXPECT_TRUE(coordinator_->idle());
  EXPECT_EQ(state("teacher-1"), "interrupted");
  EXPECT_EQ(state("pairs-2"), "waiting");
  EXPECT_THAT(job("pairs-2").reason, HasSubstr("interrupted"));
  restart();
  coordinator_->resume("teacher-1");
  tick();
  EXPECT_THAT(machine_.launched(), SizeIs(3));
}

TEST_F(CoordinatorTest, CheckpointNowReachesARunningTrainingJobOnly) {
  submit({kTeacher, kPairs});
  EXPECT_THROW(coordinator_->checkpoint_now("teacher-1"), Error);
  tick();
  hello("teacher-1", 1);
  coordinator_->checkpoint_now("teacher-1");
  EXPECT_THAT(sent_, ElementsAre("teacher-1 a1 68"));
  succeed("teacher-1");
  hello("pairs-2", 1);
  EXPECT_EQ(state("pairs-2"), "running");
  EXPECT_THROW(coordinator_->checkpoint_now("pairs-2"), Error);
}

// --- the graph ---

TEST_F(CoordinatorTest, AFailureBlocksTheGraphUntilItIsResumed) {
  submit({kDetector, kTeacher, kPairs, kDistill});
  tick();
  end("teacher-2", 1, outcome("teacher-2", "failed", ErrorCode::kCorrupt));
  EXPECT_EQ(state("pairs-3"), "blocked");
  EXPECT_THAT(job("pairs-3").reason, HasSubstr("needs teacher-2, which is failed"));
  EXPECT_EQ(state("distill-4"), "blocked") << "through pairs too";
  coordinator_->resume("teacher-2");
  EXPECT_EQ(state("pairs-3"), "waiting");
  EXPECT_EQ(state("distill-4"), "waiting");
  tick();
  succeed("teacher-2", 2);
  succeed("detector-1");
  EXPECT_EQ(state("pairs-3"), "starting");
}

// --- restart of the coordinator ---

TEST_F(CoordinatorTest, ALiveAttemptIsAdopted) {
  submit({kTeacher});
  tick();
  hello("teacher-1", 1);
  restart();
  tick(1);
  EXPECT_EQ(state("teacher-1"), "running");
  EXPECT_THAT(machine_.launched(), SizeIs(1)) << "none is started twice";
  EXPECT_FALSE(hello("teacher-1", 1).refusal);
  succeed("teacher-1");
  EXPECT_EQ(state("teacher-1"), "succeeded");
}

TEST_F(CoordinatorTest, WhatEndedMeanwhileIsReconciled) {
  submit({kDetector, kTeacher});
  tick();
  spit(attempt_outcome_file(coordinator_->run_folder("detector-1"), 1),
       to_json(outcome("detector-1", "succeeded")).dump());
  coordinator_.reset();
  machine_.of("detector-1", 1).end = ProcessEnd{false, "unknown"};
  machine_.of("teacher-2", 1).end = ProcessEnd{false, "unknown"};
  restart();
  EXPECT_EQ(state("detector-1"), "succeeded");
  EXPECT_EQ(state("teacher-2"), "queued");
  tick(1);
  EXPECT_THAT(machine_.launched(), ElementsAre("detector-1 a1", "teacher-2 a1", "teacher-2 a2"));
}

TEST_F(CoordinatorTest, AnAttemptLaunchedButNotNotedIsFound) {
  submit({kTeacher});
  machine_.die_after_launch = true;
  EXPECT_THROW(tick(), KilledCoordinator);
  machine_.die_after_launch = false;
  restart();
  tick(5);
  EXPECT_THAT(machine_.launched(), SizeIs(1));
  EXPECT_EQ(state("teacher-1"), "starting");
  EXPECT_FALSE(hello("teacher-1", 1).refusal);
  succeed("teacher-1");
  EXPECT_EQ(state("teacher-1"), "succeeded");
}

TEST_F(CoordinatorTest, AnAttemptNotedButNeverLaunchedCountsForNothing) {
  submit({kTeacher});
  machine_.die_after_launch = true;
  EXPECT_THROW(tick(), KilledCoordinator);
  machine_.die_after_launch = false;
  machine_.processes.clear();
  restart();
  EXPECT_EQ(state("teacher-1"), "queued");
  EXPECT_EQ(job("teacher-1").failures, 0);
  tick();
  EXPECT_THAT(machine_.launched(), ElementsAre("teacher-1 a2"));
}

TEST_F(CoordinatorTest, ACancelSurvivesTheCoordinator) {
  submit({kTeacher});
  tick();
  hello("teacher-1", 1);
  coordinator_->cancel("teacher-1");
  restart();
  ASSERT_THAT(hello("teacher-1", 1).commands, SizeIs(1));
  tick(21);
  EXPECT_TRUE(machine_.of("teacher-1", 1).terminated);
  end("teacher-1", 1, outcome("teacher-1", "interrupted"));
  EXPECT_EQ(state("teacher-1"), "cancelled");
}

// --- telemetry ---

TEST_F(CoordinatorTest, StaleAndUnknownSendersAreFenced) {
  submit({kTeacher});
  const auto code = [](const auto& answer) {
    return answer.refusal ? std::string(to_string(answer.refusal->code)) : "welcome";
  };
  EXPECT_EQ(code(coordinator_->hello({"nobody-9", 1, 0, 1, 7, "h", "c"})), "not_found");
  EXPECT_EQ(code(hello("teacher-1", 1)), "conflict") << "not started";
  tick();
  EXPECT_EQ(code(hello("teacher-1", 1)), "welcome");
  EXPECT_EQ(code(hello("teacher-1", 2)), "conflict") << "an attempt of the future";
  EXPECT_EQ(code(hello("teacher-1", 1, 1)), "mismatch") << "rank 1 of 1";
  EXPECT_EQ(code(coordinator_->hello({"teacher-1", 1, 0, 2, 7, "h", "c"})), "mismatch");
  die("teacher-1", 1);
  EXPECT_EQ(code(hello("teacher-1", 1)), "conflict") << "it has ended";
  tick(1);
  EXPECT_EQ(code(hello("teacher-1", 1)), "conflict") << "attempt 2 is the current one";
  EXPECT_EQ(
      code(tell({"teacher-1", 1, 0}, MessageType::kFinalState,
                {{"attempt", 1}, {"outcome", to_json(outcome("teacher-1", "succeeded"))}}, 1)),
      "conflict");
  EXPECT_EQ(code(tell({"teacher-1", 1, 0}, MessageType::kProgress, {}, 0)), "conflict");
  EXPECT_EQ(state("teacher-1"), "starting");
}

TEST_F(CoordinatorTest, FactsOfAnEarlierAttemptAreRecordedWithoutChangingTheJob) {
  submit({kTeacher});
  tick();
  die("teacher-1", 1);
  tick(1);
  hello("teacher-1", 2);
  json checkpoint = write_checkpoint("teacher-1", 10, 1);
  checkpoint.update({{"origin_attempt", 1}, {"origin_rank", 0}, {"origin_sequence", 1}});
  json final = {{"attempt", 1}, {"outcome", to_json(outcome("teacher-1", "succeeded"))}};
  final.update({{"origin_attempt", 1}, {"origin_rank", 0}, {"origin_sequence", 2}});
  EXPECT_EQ(tell({"teacher-1", 2, 0}, MessageType::kCheckpointCommitted, checkpoint, 1).acknowledge,
            1U);
  EXPECT_EQ(tell({"teacher-1", 2, 0}, MessageType::kFinalState, final, 2).acknowledge, 2U);
  EXPECT_THAT(coordinator_->checkpoints("teacher-1"), SizeIs(1));
  EXPECT_EQ(state("teacher-1"), "running");
  EXPECT_EQ(coordinator_->attempts("teacher-1")[0].outcome["state"], "succeeded");
  tick(60);
  EXPECT_FALSE(machine_.of("teacher-1", 2).terminated) << "the old end is not this attempt's";
  // Sequence 1 of attempt 2 itself is another message than sequence 1 of attempt 1.
  EXPECT_EQ(tell({"teacher-1", 2, 0}, MessageType::kCheckpointCommitted,
                 write_checkpoint("teacher-1", 20, 2), 1)
                .acknowledge,
            1U);
  EXPECT_THAT(coordinator_->checkpoints("teacher-1"), SizeIs(2));
}

TEST_F(CoordinatorTest, AMessageTwiceIsStoredOnceAndAcknowledgedTwice) {
  run_distill();
  const json body = write_checkpoint("distill-4", 50, 1);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(tell({"distill-4", 1, 0}, MessageType::kCheckpointCommitted, body, 7).acknowledge,
              7U);
  }
  // The same fact under another number: its acknowledgement was lost and the worker restarted.
  EXPECT_EQ(tell({"distill-4", 1, 0}, MessageType::kCheckpointCommitted, body, 8).acknowledge, 8U);
  EXPECT_THAT(coordinator_->checkpoints("distill-4"), SizeIs(1));
  JobFilter evaluations;
  evaluations.parent = "distill-4";
  EXPECT_THAT(coordinator_->jobs(evaluations), SizeIs(1));
}

TEST_F(CoordinatorTest, MalformedMessagesAreRefusedAndStoreNothing) {
  submit({kTeacher});
  tick();
  hello("teacher-1", 1);
  const RankId rank{"teacher-1", 1, 0};
  json good = write_checkpoint("teacher-1", 10, 1);
  json of_the_future = good;
  of_the_future["attempt"] = 2;
  EXPECT_TRUE(tell(rank, MessageType::kCheckpointCommitted, of_the_future, 1).refusal);
  EXPECT_TRUE(tell(rank, MessageType::kCheckpointCommitted, json::object(), 1).refusal);
  EXPECT_TRUE(tell(rank, MessageType::kCheckpointCommitted, good, 0).refusal) << "no sequence";
  EXPECT_TRUE(tell(rank, MessageType::kFinalState, {{"attempt", 1}}, 1).refusal);
  EXPECT_TRUE(tell(rank, MessageType::kFinalState, {{"attempt", 1}, {"outcome", 3}}, 1).refusal);
  EXPECT_TRUE(tell(rank, MessageType::kShardDone,
                   {{"attempt", 1}, {"index", 0}, {"first", 0}, {"count", 1}, {"sha256", "x"}}, 1)
                  .refusal);
  EXPECT_TRUE(tell(rank, MessageType::kProgress, {{"iteration", -1}}).refusal);
  EXPECT_TRUE(
      tell(rank, MessageType::kProgress, {{"stage", "\xff\xfe"}, {"iteration", 1}, {"images", 1}})
          .refusal);
  EXPECT_TRUE(tell(rank, MessageType::kLeaseRequest, {}).refusal);
  EXPECT_TRUE(tell(rank, MessageType::kWelcome, {}).refusal);
  EXPECT_THAT(coordinator_->checkpoints("teacher-1"), IsEmpty());
  // The refused ones did not use up their sequence.
  EXPECT_EQ(tell(rank, MessageType::kCheckpointCommitted, good, 1).acknowledge, 1U);
  EXPECT_THAT(coordinator_->checkpoints("teacher-1"), SizeIs(1));
}

TEST_F(CoordinatorTest, MessagesThatComeTogetherAreJudgedAlone) {
  submit({kTeacher});
  tick();
  hello("teacher-1", 1);
  const RankId rank{"teacher-1", 1, 0};
  const auto committed = [&](const json& body, std::uint64_t sequence) {
    return ReceivedMessage{rank, {MessageType::kCheckpointCommitted, sequence, body}};
  };
  const json first = write_checkpoint("teacher-1", 10, 1);
  const json second = write_checkpoint("teacher-1", 20, 1);
  const auto answers = coordinator_->on_messages(
      {committed(first, 1),
       committed({{"attempt", 9}}, 2),
       {{"nobody-7", 1, 0}, {MessageType::kCheckpointCommitted, 1, first}},
       {rank, {MessageType::kHeartbeat, 0, json::object()}},
       {rank, {MessageType::kLeaseRequest, 0, json::object()}},
       committed(second, 3)});
  ASSERT_THAT(answers, SizeIs(6));
  EXPECT_EQ(answers[0].acknowledge, 1U);
  EXPECT_TRUE(answers[1].refusal);
  EXPECT_TRUE(answers[2].refusal);
  EXPECT_FALSE(answers[3].refusal || answers[3].acknowledge);
  EXPECT_TRUE(answers[4].refusal) << "a teacher has no shards";
  EXPECT_EQ(answers[5].acknowledge, 3U);
  EXPECT_THAT(coordinator_->checkpoints("teacher-1"), SizeIs(2));
}

TEST_F(CoordinatorTest, ProgressBecomesMetricsThatSurviveARestart) {
  submit({kTeacher});
  tick();
  hello("teacher-1", 1);
  for (std::int64_t iteration = 10; iteration <= 1000; iteration += 10) {
    const json body = {{"stage", "train"},
                       {"iteration", iteration},
                       {"iterations", 1000},
                       {"images", iteration * 128},
                       {"images_total", 128000},
                       {"images_per_second", 500.0},
                       {"seconds_left", 3.0},
                       {"metrics",
                        {{"loss", iteration == 500 ? 9.0 : 1.0 / static_cast<double>(iteration)},
                         {"gap", std::nan("")}}}};
    EXPECT_FALSE(tell({"teacher-1", 1, 0}, MessageType::kProgress, body).refusal);
  }
  EXPECT_EQ(job("teacher-1").progress["iteration"], 1000) << "shown before it is in the database";
  tick(1.5);
  restart();
  EXPECT_EQ(job("teacher-1").progress["iteration"], 1000);
  std::vector<MetricSeries> series = coordinator_->metrics("teacher-1", {"loss", "gap"}, 0);
  ASSERT_THAT(series, SizeIs(1)) << "what is no number has no point";
  EXPECT_THAT(series[0].points, SizeIs(100));
  EXPECT_EQ(series[0].points[0].images, 1280);
  series = coordinator_->metrics("teacher-1", {"loss"}, 10);
  EXPECT_LE(series[0].points.size(), 10U);
  double highest = 0;
  for (const MetricPoint& point : series[0].points) highest = std::max(highest, point.value);
  EXPECT_EQ(highest, 9.0) << "thinning keeps the peak";
  EXPECT_THAT(coordinator_->metrics("teacher-1", {}, 0), SizeIs(2)) << "loss and images_per_second";
}

TEST_F(CoordinatorTest, LeasesAreGrantedFinishedAndReleased) {
  submit({kTeacher, kPairs});
  tick();
  succeed("teacher-1");
  hello("pairs-2", 1);
  MessageAnswer answer = tell({"pairs-2", 1, 1}, MessageType::kLeaseRequest, json::object());
  ASSERT_THAT(answer.replies, SizeIs(1));
  EXPECT_EQ(answer.replies[0].type, MessageType::kShardPlan);
  EXPECT_EQ(answer.replies[0].body.dump(),
            R"({"shards":[{"count":125,"first":125,"index":1,"rank":1},)"
            R"({"count":125,"first":375,"index":3,"rank":1}]})");
  const json done = {{"attempt", 1}, {"index", 1}, {"first", 125}, {"count", 125}, {"sha256", "x"}};
  EXPECT_EQ(tell({"pairs-2", 1, 1}, MessageType::kShardDone, done, 1).acknowledge, 1U);
  const auto states = [&] {
    std::vector<std::string> result;
    for (const LeaseRecord& lease : coordinator_->shards("pairs-2")) result.push_back(lease.state);
    return result;
  };
  EXPECT_THAT(states(), ElementsAre("released", "done", "released", "leased"));
  spit(coordinator_->run_folder("pairs-2") + "/pairs-00001.h5", "");
  die("pairs-2", 1);
  EXPECT_THAT(states(), ElementsAre("released", "done", "released", "released"));
  EXPECT_EQ(job("pairs-2").failures, 0) << "a shard is progress";
  tick(1);
  hello("pairs-2", 2);
  answer = tell({"pairs-2", 2, 1}, MessageType::kLeaseRequest, json::object());
  ASSERT_THAT(answer.replies, SizeIs(1));
  EXPECT_EQ(answer.replies[0].body["shards"].size(), 1U);
  EXPECT_EQ(answer.replies[0].body["shards"][0]["index"], 3);
}

// --- evaluations beside the run ---

TEST_F(CoordinatorTest, EachCheckpointIsEvaluatedBesideTheRun) {
  run_distill();
  commit_checkpoint("distill-4", 50, 1);
  const JobRecord evaluation = job("distill-eval-50");
  EXPECT_EQ(evaluation.parent, "distill-4");
  EXPECT_EQ(evaluation.kind, "evaluate");
  const std::string checkpoint = coordinator_->checkpoints("distill-4")[0].folder;
  tick();
  EXPECT_EQ(state(evaluation.id), "starting");
  EXPECT_TRUE(machine_.of(evaluation.id, 1).request.background);
  EXPECT_EQ(coordinator_->worker_spec(evaluation.id)["model"], checkpoint);
  EXPECT_EQ(coordinator_->worker_spec(evaluation.id)["detector"],
            coordinator_->run_folder("detector-1"));
  EXPECT_THAT(coordinator_->pipeline("digits-p1").jobs, SizeIs(4))
      << "not among the pipeline's jobs";

  hello(evaluation.id, 1);
  end(evaluation.id, 1,
      outcome(evaluation.id, "succeeded", ErrorCode::kInternal,
              {{"frechet", 2.5}, {"class_accuracy", 0.97}, {"file", "samples.png"}}));
  const std::vector<MetricSeries> series =
      coordinator_->metrics("distill-4", {"eval.frechet", "eval.class_accuracy"}, 0);
  ASSERT_THAT(series, SizeIs(2));
  EXPECT_EQ(series[1].key, "eval.frechet");
  EXPECT_EQ(series[1].points[0].value, 2.5);
  EXPECT_EQ(series[1].points[0].images, 50 * 128);
  EXPECT_EQ(coordinator_->checkpoints("distill-4")[0].frechet, 2.5);
  EXPECT_TRUE(coordinator_->checkpoints("distill-4")[0].best);
}

TEST_F(CoordinatorTest, CheckpointsArePinnedWhileTheyWaitAndTheBestStays) {
  run_distill();
  const auto pinned = [&] {
    const std::string pins = checkpoints_folder(coordinator_->run_folder("distill-4")) + "/pins";
    return std::filesystem::exists(pins) ? names_in(pins) : std::vector<std::string>{};
  };
  commit_checkpoint("distill-4", 50, 1);
  commit_checkpoint("distill-4", 100, 2);
  tick();
  EXPECT_THAT(pinned(), ElementsAre("00000050-a1", "00000100-a1"));
  const auto finish = [&](const std::string& name, double frechet) {
    const std::string id = job(name).id;
    end(id, 1, outcome(id, "succeeded", ErrorCode::kInternal, {{"frechet", frechet}}));
    tick();
  };
  finish("distill-eval-50", 2.0);
  EXPECT_THAT(pinned(), ElementsAre("00000050-a1", "00000100-a1"))
      << "the best, and one that waits";
  finish("distill-eval-100", 3.0);
  EXPECT_THAT(pinned(), ElementsAre("00000050-a1"));
  commit_checkpoint("distill-4", 150, 3);
  tick();
  finish("distill-eval-150", 1.0);
  EXPECT_THAT(pinned(), ElementsAre("00000150-a1"));
}

TEST_F(CoordinatorTest, TheBestIsOfTheFigureThatTheSpecNames) {
  json distill = kDistill;
  distill["checkpoint"] = {{"best", {{"metric", "class_accuracy"}, {"direction", "highest"}}}};
  run_distill(distill);
  const auto judge = [&](std::int64_t iteration, std::uint64_t sequence, double frechet, double accuracy) {
    commit_checkpoint("distill-4", iteration, sequence);
    tick();
    const std::string id = job("distill-eval-" + std::to_string(iteration)).id;
    end(id, 1, outcome(id, "succeeded", ErrorCode::kInternal, {{"frechet", frechet}, {"class_accuracy", accuracy}}));
  };
  judge(50, 1, 2.0, 0.9);
  judge(100, 2, 3.0, 0.95);
  const std::vector<CheckpointRecord> checkpoints = coordinator_->checkpoints("distill-4");
  EXPECT_FALSE(checkpoints[0].best);
  EXPECT_TRUE(checkpoints[1].best);
  EXPECT_EQ(checkpoints[1].score, 0.95);
  EXPECT_EQ(checkpoints[1].frechet, 3.0);
}

// --- what an export takes ---

class ExportTest : public CoordinatorTest {
 protected:
  // A distill run with two judged checkpoints, the earlier one the better, a third that is being judged; it has succeeded.
  void SetUp() override {
    CoordinatorTest::SetUp();
    run_distill();
    for (std::int64_t i = 1; i <= 2; ++i) {
      commit_checkpoint("distill-4", 50 * i, static_cast<std::uint64_t>(i));
      tick();
      const std::string id = job("distill-eval-" + std::to_string(50 * i)).id;
      end(id, 1, outcome(id, "succeeded", ErrorCode::kInternal, {{"frechet", static_cast<double>(i)}}));
    }
    commit_checkpoint("distill-4", 150, 3);
    tick();
    succeed("distill-4");
    best_ = coordinator_->checkpoints("distill-4")[0].folder;
    last_ = coordinator_->run_folder("distill-4");
  }
  void judge_the_third() {
    const std::string id = job("distill-eval-150").id;
    end(id, 1, outcome(id, "succeeded", ErrorCode::kInternal, {{"frechet", 9.0}}));
    tick();
  }
  std::string submit_export(const json& changes) {
    json spec = {{"name", "export"}, {"kind", "export"}, {"model", last_}};
    spec.update(changes);
    const std::string id = coordinator_->submit(parse_pipeline(spec, folder_.path(), "test")).jobs[0];
    tick();
    return id;
  }
  std::string model_of(const std::string& id) { return coordinator_->worker_spec(id).at("model"); }

  std::string best_, last_;
};

TEST_F(ExportTest, TheBestOnceAllAreJudged) {
  const std::string id = submit_export(json::object());
  EXPECT_EQ(state(id), "waiting");
  EXPECT_THAT(job(id).reason, HasSubstr("waits for distill-eval-150"));
  judge_the_third();
  EXPECT_EQ(state(id), "starting");
  EXPECT_EQ(model_of(id), best_);
}

TEST_F(ExportTest, TheLastWhenToldAndAtOnce) {
  const std::string id = submit_export({{"selection", "last"}});
  EXPECT_EQ(state(id), "starting");
  EXPECT_EQ(model_of(id), last_);
}

TEST_F(ExportTest, ACheckpointThatIsNamedIsTaken) {
  const std::string folder = coordinator_->checkpoints("distill-4")[1].folder;
  EXPECT_EQ(model_of(submit_export({{"model", folder}})), folder);
}

TEST_F(ExportTest, TheBestOfNothingIsRefused) {
  const std::string id = submit_export({{"model", coordinator_->run_folder("teacher-2")}, {"selection", "best"}});
  EXPECT_EQ(state(id), "failed");
  EXPECT_THAT(job(id).reason, HasSubstr("expected the run folder of a distill job of this coordinator with an evaluated checkpoint"));
}

TEST_F(CoordinatorTest, OneEvaluationRunsAndNoMoreThanTwoWait) {
  run_distill();
  commit_checkpoint("distill-4", 50, 1);
  tick();
  for (std::uint64_t i = 2; i <= 5; ++i)
    commit_checkpoint("distill-4", static_cast<std::int64_t>(i) * 50, i);
  tick();
  EXPECT_EQ(state("distill-eval-50"), "starting");
  EXPECT_EQ(state("distill-eval-100"), "cancelled");
  EXPECT_THAT(job("distill-eval-100").reason, HasSubstr("skipped"));
  EXPECT_EQ(state("distill-eval-150"), "cancelled");
  EXPECT_EQ(state("distill-eval-200"), "queued");
  EXPECT_EQ(state("distill-eval-250"), "queued");
  EXPECT_THAT(machine_.launched(), SizeIs(5));
}

TEST_F(CoordinatorTest, WhenTheRunIsDoneOnlyTheLastIsStillEvaluated) {
  run_distill();
  for (std::uint64_t i = 1; i <= 3; ++i) {
    commit_checkpoint("distill-4", static_cast<std::int64_t>(i) * 50, i);
    tick();
  }
  succeed("distill-4");
  EXPECT_EQ(state("distill-eval-50"), "starting") << "what runs may end";
  EXPECT_EQ(state("distill-eval-100"), "cancelled");
  EXPECT_EQ(state("distill-eval-150"), "queued");
  succeed(job("distill-eval-50").id);
  EXPECT_EQ(state("distill-eval-150"), "starting");
}

TEST_F(CoordinatorTest, WithTheRunItsWaitingEvaluationsAreCancelled) {
  run_distill();
  for (std::uint64_t i = 1; i <= 2; ++i) {
    commit_checkpoint("distill-4", static_cast<std::int64_t>(i) * 50, i);
    tick();
  }
  coordinator_->cancel("distill-4");
  end("distill-4", 1, outcome("distill-4", "interrupted"));
  EXPECT_EQ(state("distill-4"), "cancelled");
  EXPECT_EQ(state("distill-eval-100"), "cancelled");
}

TEST_F(CoordinatorTest, ACheckpointThatNoMessageToldIsFoundAtTheEndAndEvaluatedOnce) {
  run_distill();
  commit_checkpoint("distill-4", 50, 1);
  write_checkpoint("distill-4", 100, 1);
  die("distill-4", 1);
  tick(1);
  EXPECT_THAT(coordinator_->checkpoints("distill-4"), SizeIs(2));
  EXPECT_EQ(state("distill-eval-100"), "queued");
  // Attempt 2 commits iteration 100 again: the same weights, not evaluated twice.
  EXPECT_FALSE(hello("distill-4", 2).refusal);
  EXPECT_EQ(tell({"distill-4", 2, 0}, MessageType::kCheckpointCommitted,
                 write_checkpoint("distill-4", 100, 2), 1)
                .acknowledge,
            1U);
  JobFilter evaluations;
  evaluations.parent = "distill-4";
  EXPECT_THAT(coordinator_->jobs(evaluations), SizeIs(2));
}

TEST_F(CoordinatorTest, ARunWithoutADetectorIsNotEvaluated) {
  json plain = kDistill;
  plain.erase("evaluation");
  submit({kTeacher, kPairs, plain});
  tick();
  succeed("teacher-1");
  succeed("pairs-2");
  hello("distill-3", 1);
  commit_checkpoint("distill-3", 50, 1);
  EXPECT_THAT(coordinator_->jobs({}), SizeIs(3));
}

TEST_F(CoordinatorTest, AJobStartsWhenRoomComesByItself) {
  machine_.capacity = Capacity{0, false};
  machine_.capacity_varies = true;
  submit({kTeacher});
  tick();
  tick(10);
  EXPECT_THAT(machine_.launched(), IsEmpty());
  machine_.capacity = Capacity{2, false};
  tick(3);
  EXPECT_THAT(machine_.launched(), ElementsAre("teacher-1 a1"));
}

TEST_F(CoordinatorTest, RunsOnFewerRanksWhereTheBitsAllowItAndOnAllWhenTheyAreBack) {
  machine_.capacity = Capacity{2, false};
  json teacher = kTeacher;
  teacher["ranks"] = 4;
  teacher["micro_batches"] = 8;
  submit({teacher});
  tick();
  EXPECT_EQ(machine_.of("teacher-1", 1).request.ranks, 2);
  EXPECT_EQ(job("teacher-1").ranks, 2);
  EXPECT_FALSE(hello("teacher-1", 1).refusal) << "two ranks are what this attempt has";
  restart();
  EXPECT_EQ(job("teacher-1").ranks, 2);
  machine_.capacity = Capacity{4, false};
  die("teacher-1", 1);
  tick(10);
  EXPECT_EQ(machine_.of("teacher-1", 2).request.ranks, 4);

  machine_.capacity = Capacity{2, false};
  json fast = teacher;
  fast["reduction"] = "fast";
  submit({fast});
  tick();
  EXPECT_EQ(state("teacher-2"), "queued");
  die("teacher-1", 2);
  tick(10);
  EXPECT_EQ(machine_.of("teacher-1", 3).request.ranks, 2);
  succeed("teacher-1", 3);
  tick();
  EXPECT_THAT(job("teacher-2").reason, HasSubstr("can't run on so few")) << "its bits would differ";
}

TEST_F(CoordinatorTest, WhatTheBatchSystemRefusesIsNotTriedAgain) {
  submit({kTeacher});
  tick();
  machine_.of("teacher-1", 1).end = ProcessEnd{.clean = false, .description = "sbatch: Invalid partition", .refused = true};
  tick();
  EXPECT_EQ(state("teacher-1"), "failed");
  EXPECT_THAT(job("teacher-1").reason, HasSubstr("Invalid partition"));
}

TEST_F(CoordinatorTest, PreemptionIsNotCountedAgainstTheJob) {
  submit({kTeacher});
  for (int attempt = 1; attempt <= 6; ++attempt) {
    tick(10);
    machine_.of("teacher-1", attempt).end = ProcessEnd{.clean = false, .description = "PREEMPTED", .machine_fault = true};
    tick();
    EXPECT_EQ(state("teacher-1"), "queued");
  }
  EXPECT_EQ(job("teacher-1").failures, 0);
}

TEST_F(CoordinatorTest, AttemptsThatNeverStartedOnALostHostAreTriedUntilItIsMissed) {
  machine_.unnoticed_loss_s = 20;
  submit({kTeacher});
  for (int attempt = 1; attempt <= 6; ++attempt) {
    tick(10);
    die("teacher-1", attempt);
    EXPECT_EQ(state("teacher-1"), "queued") << attempt;
  }
  tick(10);
  die("teacher-1", 7);
  EXPECT_EQ(state("teacher-1"), "failed");
}

TEST_F(CoordinatorTest, AnotherLauncherDoesNotTakeOverWhatItCanNotSee) {
  submit({kTeacher});
  tick();
  machine_.launcher = "slurm-batch";
  try {
    restart();
    FAIL() << "taken over";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kConflict);
    EXPECT_THAT(error.what(), HasSubstr("--launcher local"));
  }
  machine_.launcher = "local";
  restart();
  EXPECT_EQ(state("teacher-1"), "starting");
}

TEST_F(CoordinatorTest, TellsWhereTheBatchSystemHasAnAttemptThatStarts) {
  machine_.whereabouts = "Slurm job 17 is PENDING (Resources)";
  submit({kTeacher});
  tick();
  tick();
  EXPECT_EQ(job("teacher-1").reason, "attempt 1 starts: Slurm job 17 is PENDING (Resources)");
  EXPECT_FALSE(hello("teacher-1", 1).refusal);
  tick();
  EXPECT_EQ(job("teacher-1").reason, "attempt 1 runs on 1 rank");
}

TEST_F(CoordinatorTest, GoesOnWithWhatWasStoppedNotWithWhatWasCancelled) {
  submit({kTeacher, kDetector});
  tick();
  EXPECT_FALSE(hello("teacher-1", 1).refusal);
  EXPECT_FALSE(hello("detector-2", 1).refusal);
  coordinator_->cancel("detector-2");
  coordinator_->stop_all("the coordinator stops");
  end("teacher-1", 1, outcome("teacher-1", "interrupted"));
  end("detector-2", 1, outcome("detector-2", "interrupted"));
  restart();
  EXPECT_EQ(state("teacher-1"), "interrupted") << "only when asked";
  EXPECT_EQ(coordinator_->resume_stopped(), 1);
  tick();
  EXPECT_EQ(machine_.of("teacher-1", 2).request.attempt, 2);
  EXPECT_EQ(state("detector-2"), "cancelled");
}

TEST_F(CoordinatorTest, NobodyMissesTheRanksOfAnAttemptThatWaitsInAQueue) {
  machine_.pending = true;
  submit({kTeacher});
  for (int hour = 0; hour < 3; ++hour) tick(3600);
  EXPECT_EQ(job("teacher-1").num_alarms, 0);
  machine_.pending = false;
  tick(100);
  EXPECT_EQ(job("teacher-1").num_alarms, 0) << "the time to start begins now";
  tick(100);
  EXPECT_EQ(job("teacher-1").num_alarms, 1);

  machine_.pending = true;
  coordinator_->cancel("teacher-1");
  tick();
  EXPECT_TRUE(machine_.of("teacher-1", 1).terminated) << "there are no ranks that could save";
}

}  // namespace
}  // namespace onestep
