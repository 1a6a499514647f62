#include "coordinator/store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "common/error.h"
#include "coordinator/store_schema.h"
#include "support/temp_folder.h"

namespace onestep {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

class StoreTest : public testing::Test {
 protected:
  [[nodiscard]] std::string path() const { return folder_.path() + "/coordinator.sqlite"; }

  static JobRecord job(std::int64_t number, const std::string& name,
                       const std::vector<std::string>& after = {}) {
    JobRecord record;
    record.number = number;
    record.id = name + "-" + std::to_string(number);
    record.name = name;
    record.kind = "distill";
    record.pipeline = "p-p1";
    record.after = after;
    record.spec = {{"name", name}};
    record.reason = "submitted";
    return record;
  }
  // A pipeline "p-p1" with jobs a-1 and b-2, b after a.
  static void fill(Store& store) {
    auto transaction = store.begin();
    store.insert_pipeline({store.next_pipeline_number(), "p-p1", "p", 5.0, {}});
    store.insert_job(job(store.next_job_number(), "a"));
    store.insert_job(job(store.next_job_number(), "b", {"a-1"}));
    transaction.commit();
  }

  TempFolder folder_;
};

void run_sql(const std::string& path, const std::string& sql) {
  sqlite3* database = nullptr;
  ASSERT_EQ(sqlite3_open(path.c_str(), &database), SQLITE_OK);
  EXPECT_EQ(sqlite3_exec(database, sql.c_str(), nullptr, nullptr, nullptr), SQLITE_OK);
  sqlite3_close(database);
}

TEST_F(StoreTest, EverythingIsThereAfterReopening) {
  {
    Store store(path());
    fill(store);
    auto transaction = store.begin();
    JobRecord a = store.job("a-1").value();
    a.state = JobState::kRunning;
    a.reason = "attempt 1 runs";
    a.attempts = 1;
    a.failures = 2;
    a.not_before = 7.5;
    a.cancel_requested = true;
    a.stop_requested = 8.5;
    a.started = 6;
    a.ended = 9;
    a.digest = "abc";
    a.outcome = {{"state", "succeeded"}};
    a.progress = {{"iteration", 4}};
    store.update_job(a);
    AttemptRecord attempt;
    attempt.job = "a-1";
    attempt.number = 1;
    attempt.state = "starting";
    store.insert_attempt(attempt);
    attempt.pid = 77;
    attempt.start_time = 123456789012;
    attempt.progress_mark = 40;
    attempt.outcome = {{"state", "failed"}};
    attempt.reason = "died";
    store.update_attempt(attempt);
    EXPECT_TRUE(store.insert_checkpoint(
        {"a-1", "/run/00000010-a1", 1, 10, 1280, 999, "d1", 6.5, std::nullopt, false}));
    EXPECT_FALSE(store.insert_checkpoint(
        {"a-1", "/run/00000010-a1", 1, 10, 0, 0, "other", 0, std::nullopt, false}));
    store.put_lease("a-1", {0, 0, 250, 1, 1, "leased", ""});
    transaction.commit();
  }
  Store store(path());
  const JobRecord a = store.job("a-1").value();
  EXPECT_EQ(a.state, JobState::kRunning);
  EXPECT_EQ(a.reason, "attempt 1 runs");
  EXPECT_EQ(a.attempts, 1);
  EXPECT_EQ(a.failures, 2);
  EXPECT_EQ(a.not_before, 7.5);
  EXPECT_TRUE(a.cancel_requested);
  EXPECT_EQ(a.stop_requested, 8.5);
  EXPECT_EQ(a.started, 6);
  EXPECT_EQ(a.ended, 9);
  EXPECT_EQ(a.digest, "abc");
  EXPECT_EQ(a.outcome, json({{"state", "succeeded"}}));
  EXPECT_EQ(a.progress, json({{"iteration", 4}}));
  EXPECT_EQ(a.spec, json({{"name", "a"}}));
  const JobRecord b = store.job("b-2").value();
  EXPECT_THAT(b.after, ElementsAre("a-1"));
  EXPECT_TRUE(b.outcome.is_null());
  const std::vector<AttemptRecord> attempts = store.attempts("a-1");
  ASSERT_EQ(attempts.size(), 1U);
  EXPECT_EQ(attempts[0].pid, 77);
  EXPECT_EQ(attempts[0].start_time, 123456789012);
  EXPECT_EQ(attempts[0].progress_mark, 40);
  EXPECT_EQ(attempts[0].outcome, json({{"state", "failed"}}));
  EXPECT_EQ(attempts[0].reason, "died");
  ASSERT_EQ(store.checkpoints("a-1").size(), 1U);
  EXPECT_EQ(store.checkpoints("a-1")[0].digest, "d1");
  EXPECT_EQ(store.leases("a-1").at(0).count, 250);
  EXPECT_THAT(store.pipeline("p-p1").value().jobs, ElementsAre("a-1", "b-2"));
  EXPECT_EQ(store.next_job_number(), 3) << "numbers are never given twice";
}

TEST_F(StoreTest, ANewerSchemaIsRefused) {
  { Store store(path()); }
  run_sql(path(), "PRAGMA user_version = 99");
  try {
    Store store(path());
    FAIL() << "opened a newer schema";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kMismatch);
    EXPECT_THAT(error.what(), HasSubstr("expected at most " + std::to_string(Store::kSchemaVersion) + ", found 99"));
  }
}

TEST_F(StoreTest, CurvesOfTheFirstVersionComeAlong) {
  run_sql(path(), schema_steps()[0]);
  run_sql(path(), "PRAGMA user_version = 1");
  run_sql(path(), "INSERT INTO pipelines VALUES (1, 'p-p1', 'p', 5.0)");
  run_sql(path(),
          "INSERT INTO jobs VALUES (1, 'a-1', 'a', 'distill', 'p-p1', NULL, 0, 1, '{}', 'running', "
          "'', 1, 0, 0, 0, 0, 0, 0, 0, '', NULL, NULL)");
  run_sql(path(),
          "WITH RECURSIVE i(n) AS (VALUES (0) UNION ALL SELECT n + 1 FROM i WHERE n < 4999) "
          "INSERT INTO metrics(job, key, stage, iteration, images, attempt, rank, value) "
          "SELECT 'a-1', 'loss', 'dmd', n, n * 32, 1, 0, CASE n WHEN 77 THEN 9.0 ELSE 1.0 END FROM i");
  Store store(path());
  EXPECT_EQ(store.metrics("a-1", {}, 0).at(0).points.size(), 5000U);
  double highest = 0;
  for (const MetricPoint& point : store.metrics("a-1", {"loss"}, 20).at(0).points) {
    highest = std::max(highest, point.value);
    EXPECT_EQ(point.images, point.iteration * 32);
  }
  EXPECT_EQ(highest, 9.0) << "as if it had been written by this version";
}

TEST_F(StoreTest, CheckpointsOfTheSecondVersionAreJudgedByTheirFrechetDistance) {
  run_sql(path(), schema_steps()[0]);
  run_sql(path(), schema_steps()[1]);
  run_sql(path(), "PRAGMA user_version = 2");
  run_sql(path(), "INSERT INTO pipelines VALUES (1, 'p-p1', 'p', 5.0)");
  run_sql(path(),
          "INSERT INTO jobs VALUES (1, 'a-1', 'a', 'distill', 'p-p1', NULL, 0, 1, '{}', 'running', "
          "'', 1, 0, 0, 0, 0, 0, 0, 0, '', NULL, NULL)");
  run_sql(path(), "INSERT INTO checkpoints VALUES ('a-1', '/c/1', 1, 10, 320, 5, 'd', 6.0, 2.5, 1), ('a-1', '/c/2', 1, 20, 640, 5, 'd', 7.0, NULL, 0)");
  Store store(path());
  const std::vector<CheckpointRecord> found = store.checkpoints("a-1");
  ASSERT_EQ(found.size(), 2U);
  EXPECT_EQ(found[0].score, 2.5);
  EXPECT_TRUE(found[0].best);
  EXPECT_EQ(found[1].score, std::nullopt);
  EXPECT_EQ(store.job("a-1").value().num_alarms, 0);
}

TEST_F(StoreTest, AlarmsAreKeptWithWhatTheyAreJudgedFrom) {
  {
    Store store(path());
    fill(store);
    auto transaction = store.begin();
    AlarmRecord alarm;
    alarm.job = "a-1";
    alarm.code = "fake_loss";
    alarm.value = 2.5;
    alarm.raised = 7;
    EXPECT_EQ(store.insert_alarm(alarm), 1);
    alarm.code = "rank_silent";
    alarm.rank = 3;
    EXPECT_EQ(store.insert_alarm(alarm), 2);
    store.end_alarm(2, 9);
    store.put_health("a-1", {{"x", 1}});
    transaction.commit();
  }
  Store store(path());
  const std::vector<AlarmRecord> alarms = store.alarms("a-1");
  ASSERT_EQ(alarms.size(), 2U);
  EXPECT_EQ(alarms[0].value, 2.5);
  EXPECT_EQ(alarms[1].rank, 3);
  EXPECT_EQ(alarms[1].ended, 9);
  ASSERT_EQ(store.holding_alarms().size(), 1U);
  EXPECT_EQ(store.holding_alarms()[0].code, "fake_loss");
  EXPECT_EQ(store.num_holding_alarms("a-1"), 1);
  EXPECT_EQ(store.job("a-1").value().num_alarms, 1);
  EXPECT_EQ(store.health("a-1"), json({{"x", 1}}));
  EXPECT_TRUE(store.health("b-2").is_null());
}

TEST_F(StoreTest, EventsAreNumberedOnAndFoundByTheirScope) {
  Store store(path());
  fill(store);
  const std::int64_t before = store.last_event();
  EXPECT_EQ(store.insert_event({0, "a-1", "state", 1.5, R"({"x":1})"}), before + 1);
  store.insert_event({0, "b-2", "metric", 2.5, "{}"});
  store.insert_event({0, "a-1", "metric", 3.5, "{}"});
  const auto numbers = [&](const EventFilter& filter) {
    std::vector<std::int64_t> found;
    for (const EventRecord& event : store.events(filter)) found.push_back(event.number - before);
    return found;
  };
  EXPECT_THAT(numbers({.after = before}), ElementsAre(1, 2, 3));
  EXPECT_THAT(numbers({.job = "a-1", .after = before}), ElementsAre(1, 3));
  EXPECT_THAT(numbers({.pipeline = "p-p1", .after = before}), ElementsAre(1, 2, 3));
  EXPECT_THAT(numbers({.pipeline = "other", .after = before}), ElementsAre());
  EXPECT_THAT(numbers({.after = before, .types = {"metric", "log"}}), ElementsAre(2, 3));
  EXPECT_THAT(numbers({.after = before + 1, .until = before + 2}), ElementsAre(2));
  EXPECT_THAT(numbers({.after = before, .limit = 2}), ElementsAre(1, 2));
  EXPECT_EQ(store.events({.after = before}).at(0).body, R"({"x":1})");
  EXPECT_EQ(store.last_event(), before + 3);
}

TEST_F(StoreTest, AFileThatIsNoDatabaseIsCorrupt) {
  std::ofstream(path()) << std::string(4096, 'x');
  try {
    Store store(path());
    FAIL() << "opened a text file";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kCorrupt);
    EXPECT_THAT(error.what(), HasSubstr(path()));
  }
}

TEST_F(StoreTest, ATransactionThatIsNotCommittedLeavesNothing) {
  Store store(path());
  {
    auto transaction = store.begin();
    store.insert_pipeline({store.next_pipeline_number(), "p-p1", "p", 5.0, {}});
  }
  EXPECT_FALSE(store.pipeline("p-p1"));
  EXPECT_EQ(store.next_pipeline_number(), 1);
}

TEST_F(StoreTest, AKillBetweenTransactionsLosesOnlyWhatWasNotCommitted) {
  const pid_t child = ::fork();
  if (child == 0) {
    Store store(path());
    fill(store);
    auto transaction = store.begin();
    JobRecord a = store.job("a-1").value();
    a.reason = "half written";
    store.update_job(a);
    ::kill(::getpid(), SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));
  Store store(path());
  EXPECT_EQ(store.job("a-1").value().reason, "submitted");
  EXPECT_TRUE(store.job("b-2"));
}

TEST_F(StoreTest, ReferencesToUnknownJobsAreRefused) {
  Store store(path());
  fill(store);
  auto transaction = store.begin();
  AttemptRecord attempt;
  attempt.job = "nobody-9";
  attempt.number = 1;
  EXPECT_THROW(store.insert_attempt(attempt), Error);
}

TEST_F(StoreTest, FiltersAndPagesByNumber) {
  Store store(path());
  fill(store);
  {
    auto transaction = store.begin();
    JobRecord child = job(store.next_job_number(), "a-eval-10");
    child.parent = "a-1";
    child.state = JobState::kQueued;
    store.insert_job(child);
    store.insert_job(job(store.next_job_number(), "a"));
    transaction.commit();
  }
  const auto ids = [&](const JobFilter& filter) {
    std::vector<std::string> found;
    for (const JobRecord& record : store.jobs(filter)) found.push_back(record.id);
    return found;
  };
  EXPECT_THAT(ids({}), ElementsAre("a-1", "b-2", "a-eval-10-3", "a-4"));
  JobFilter filter;
  filter.state = JobState::kQueued;
  EXPECT_THAT(ids(filter), ElementsAre("a-eval-10-3"));
  filter = {};
  filter.parent = "a-1";
  EXPECT_THAT(ids(filter), ElementsAre("a-eval-10-3"));
  filter = {};
  filter.name = "a";
  EXPECT_THAT(ids(filter), ElementsAre("a-1", "a-4"));
  filter = {};
  filter.after = 1;
  filter.limit = 2;
  EXPECT_THAT(ids(filter), ElementsAre("b-2", "a-eval-10-3"));
  EXPECT_EQ(store.newest_job_named("a").value().id, "a-4");
  EXPECT_THAT(store.pipeline("p-p1").value().jobs, ElementsAre("a-1", "b-2", "a-4"))
      << "automatic evaluations are not the pipeline's";
}

TEST_F(StoreTest, AMessageIsNewOnce) {
  Store store(path());
  fill(store);
  EXPECT_TRUE(store.remember_message("a-1", 1, 0, 1));
  EXPECT_FALSE(store.remember_message("a-1", 1, 0, 1));
  EXPECT_TRUE(store.remember_message("a-1", 1, 0, 2));
  EXPECT_TRUE(store.remember_message("a-1", 1, 1, 1));
  EXPECT_TRUE(store.remember_message("a-1", 2, 0, 1));
}

TEST_F(StoreTest, ARepeatedIterationOverwritesItsMetrics) {
  Store store(path());
  fill(store);
  store.insert_metrics("a-1", {{"loss", "dmd", 10, 1280, 1, 0, 0.5},
                               {"loss", "dmd", 20, 2560, 1, 0, 0.4},
                               {"norm", "dmd", 20, 2560, 1, 0, 3.0}});
  store.insert_metrics("a-1", {{"loss", "dmd", 20, 2560, 2, 0, 0.45}});
  const std::vector<MetricPoint> loss = store.metrics("a-1", {"loss"}, 0).at(0).points;
  ASSERT_EQ(loss.size(), 2U);
  EXPECT_EQ(loss[1].value, 0.45);
  EXPECT_EQ(loss[1].attempt, 2);
  EXPECT_EQ(store.metrics("a-1", {}, 0).size(), 2U);
  EXPECT_EQ(store.metrics("a-1", {"loss", "norm"}, 0).size(), 2U);
}

TEST_F(StoreTest, ReleasedLeasesKeepWhatIsDone) {
  Store store(path());
  fill(store);
  store.put_lease("a-1", {0, 0, 10, 0, 1, "done", "x"});
  store.put_lease("a-1", {1, 10, 10, 1, 1, "leased", ""});
  store.release_leases("a-1", 1);
  EXPECT_EQ(store.leases("a-1")[0].state, "done");
  EXPECT_EQ(store.leases("a-1")[1].state, "released");
  EXPECT_EQ(store.leases("a-1")[1].attempt, 0);
}

}  // namespace
}  // namespace onestep
