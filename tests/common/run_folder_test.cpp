#include "common/run_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "common/error.h"

namespace onestep {
namespace {

using nlohmann::json;
using testing::HasSubstr;

JobOutcome failed() {
  JobOutcome outcome;
  outcome.name = "distill";
  outcome.kind = "distill";
  outcome.state = "failed";
  outcome.attempts = 2;
  outcome.error_code = "io";
  outcome.error = "write a.h5: No space left on device";
  return outcome;
}

std::string refusal_of(const json& document) {
  try {
    job_outcome_from_json(document, "outcome.json");
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kCorrupt);
    return error.what();
  }
  ADD_FAILURE() << "accepted: " << document.dump();
  return "";
}

TEST(RunFolder, NamesCarryTheAttempt) {
  EXPECT_EQ(job_file("/r"), "/r/job.json");
  EXPECT_EQ(log_file("/r", 2, 13), "/r/logs/a2-rank-13.log");
  EXPECT_EQ(mpirun_log_file("/r", 2), "/r/logs/a2-mpirun.log");
  EXPECT_EQ(checkpoints_folder("/r"), "/r/checkpoints");
  EXPECT_EQ(outbox_folder("/r"), "/r/outbox");
  EXPECT_EQ(attempt_outcome_file("/r", 3), "/r/outcome-a3.json");
  EXPECT_EQ(outcome_file("/r"), "/r/outcome.json");
}

TEST(JobOutcome, GoesThereAndBack) {
  JobOutcome succeeded;
  succeeded.name = "evaluate_one_step";
  succeeded.kind = "evaluate";
  succeeded.state = "succeeded";
  succeeded.digest = std::string(64, 'a');
  succeeded.result = {{"frechet", 1.875}};
  for (const JobOutcome& outcome : {failed(), succeeded}) {
    const json document = to_json(outcome);
    EXPECT_EQ(to_json(job_outcome_from_json(document, "test")), document);
  }
  EXPECT_EQ(to_json(succeeded)["result"]["frechet"], 1.875);
  EXPECT_FALSE(to_json(succeeded).contains("error"));
  EXPECT_EQ(to_json(failed())["error_code"], "io");
}

TEST(JobOutcome, SummaryHasTheFivePublicFields) {
  EXPECT_EQ(summary_json(failed()), (json{{"name", "distill"},
                                          {"kind", "distill"},
                                          {"state", "failed"},
                                          {"attempts", 2},
                                          {"digest", ""}}));
}

TEST(JobOutcome, RefusesWhatIsNoOutcome) {
  json document = to_json(failed());
  document["state"] = "done";
  EXPECT_THAT(refusal_of(document), HasSubstr("/state: expected one of"));
  document = to_json(failed());
  document["attempts"] = 0;
  EXPECT_THAT(refusal_of(document), HasSubstr("/attempts: expected an integer from 1"));
  document = to_json(failed());
  document["colour"] = "red";
  EXPECT_THAT(refusal_of(document), HasSubstr("/colour: unknown key"));
  document = to_json(failed());
  document.erase("digest");
  EXPECT_THAT(refusal_of(document), HasSubstr("/digest: expected a string, found nothing"));
  document = to_json(failed());
  document["result"] = 3;
  EXPECT_THAT(refusal_of(document), HasSubstr("/result: expected an object, found 3"));
  EXPECT_THAT(refusal_of(json::array()), HasSubstr("expected an object"));
}

TEST(ReadOutcome, TellsAbsentFromCorrupt) {
  const std::string path = testing::TempDir() + "/run_folder_test_outcome.json";
  std::remove(path.c_str());
  EXPECT_FALSE(read_outcome(path).has_value());
  std::ofstream(path) << to_json(failed()).dump();
  const auto outcome = read_outcome(path);
  ASSERT_TRUE(outcome.has_value());
  EXPECT_EQ(outcome->error, "write a.h5: No space left on device");
  std::ofstream(path) << "{\"name\": \"dist";
  try {
    read_outcome(path);
    ADD_FAILURE() << "half a file was accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kCorrupt);
    EXPECT_THAT(error.what(), HasSubstr(path));
  }
}

}  // namespace
}  // namespace onestep
