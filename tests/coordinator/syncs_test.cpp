// How often the coordinator waits for the disk, counted exactly.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <functional>
#include <thread>

#include "coordinator/api.h"
#include "coordinator/coordinator_fixture.h"
#include "coordinator/store_log.h"
#include "support/sync_count.h"

namespace onestep {
namespace {

using testing::HasSubstr;

// Syncs of this thread that `action` took.
int syncs_of(const std::function<void()>& action) {
  const int before = num_syncs;
  action();
  return num_syncs - before;
}

class Syncs : public CoordinatorTest {
 protected:
  void SetUp() override {
    slots_ = 1;
    CoordinatorTest::SetUp();
    submit({kTeacher});
    tick();
    ASSERT_FALSE(hello("teacher-1", 1).refusal);
    // SQLite syncs the head of its log once, in the first commit after it began anew.
    submit({kTeacher});
    tick();
  }
};

TEST_F(Syncs, ASubmissionIsOne) {
  Api api(*coordinator_, {.roots = FileRoots({"/"})});
  const json body = {{"base", "/specs"}, {"spec", {{"pipeline", "digits"}, {"jobs", {kDetector, kTeacher, kPairs, kDistill}}}}};
  const auto post = [&](const std::string& key) {
    HttpRequest request{"POST", "/api/v1/jobs", {{"host", "localhost"}, {"content-type", "application/json"}}, body.dump()};
    if (!key.empty()) request.headers["idempotency-key"] = key;
    EXPECT_EQ(api.handle(request).status, 201);
  };
  EXPECT_EQ(syncs_of([&] { post(""); }), 1);
  EXPECT_EQ(syncs_of([&] { post("k1"); }), 1) << "its answer is remembered in the same transaction";
  EXPECT_EQ(syncs_of([&] { post("k1"); }), 0) << "was submitted before";
}

TEST_F(Syncs, ATurnThatDecidesNothingIsNone) {
  for (int i = 0; i < 3; ++i) submit({kDetector});
  EXPECT_EQ(syncs_of([&] { tick(); }), 0) << "that they wait was written down with them";
  EXPECT_THAT(job("detector-5").reason, HasSubstr("behind other jobs"));
  tell({"teacher-1", 1, 0}, MessageType::kHeartbeat, {{"iteration", 5}});
  EXPECT_EQ(syncs_of([&] { tick(1); }), 0);
}

TEST_F(Syncs, ACommitNeverCopiesTheLog) {
  const auto frames = [&] { return static_cast<int>(std::filesystem::file_size(folder_ / "data/coordinator.sqlite-wal") / 4096); };
  const std::string database = folder_ / "data/coordinator.sqlite";
  const auto size = std::filesystem::file_size(database);
  int most = 0, num_written = 0;
  // Ten times what makes a copy due.
  while (frames() < LogCopier::kFrames || num_written < 10 * LogCopier::kFrames) {
    most = std::max(most, syncs_of([&] { submit({kDetector}); }));
    num_written += 15;
  }
  // One for the commit; the head of a log that begins anew is one more.
  EXPECT_LE(most, 2);
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (std::filesystem::file_size(database) == size && std::chrono::steady_clock::now() < end) std::this_thread::yield();
  EXPECT_GT(std::filesystem::file_size(database), size) << "the thread copies it";
  EXPECT_LT(frames(), LogCopier::kMaxFrames + LogCopier::kFrames) << "and the log begins anew";
}

}  // namespace
}  // namespace onestep
