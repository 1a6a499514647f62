// The same bits on 1, 2 and 4 ranks, with and without a coordinator.
#include <gtest/gtest.h>

#include "integration/finished_smoke.h"
#include "integration/service.h"
#include "support/files.h"
#include "support/temp_folder.h"

namespace onestep {
namespace {

const char* kMpirun = "mpirun --allow-run-as-root --oversubscribe --bind-to none -n ";

// The last line of a worker alone on `job`'s spec of the finished pipeline.
nlohmann::json worker_alone(const FinishedSmoke& smoke, const std::string& job, int ranks) {
  const TempFolder folder;
  const std::string worker = "onestep-worker " + smoke.run_folder(job) + "/job.json --output " + folder / "run";
  const ShellResult run = shell(ranks == 0 ? worker : kMpirun + std::to_string(ranks) + " " + worker);
  EXPECT_EQ(run.exit_status, 0) << run.error;
  return run.last_line();
}

class Ranks : public ::testing::TestWithParam<int> {};

TEST_P(Ranks, TheWorkerAloneMakesTheSameStudent) {
  const FinishedSmoke smoke = finished_smoke();
  const nlohmann::json line = worker_alone(smoke, "distill", GetParam());
  EXPECT_EQ(line.at("digest"), smoke.digest("distill"));
  EXPECT_EQ(line.at("name"), "distill");
  EXPECT_EQ(line.at("kind"), "distill");
  EXPECT_EQ(line.at("state"), "succeeded");
  EXPECT_EQ(line.at("attempts"), 1);
}

TEST_P(Ranks, TheWorkerAloneMakesTheSameTeacher) {
  const FinishedSmoke smoke = finished_smoke();
  EXPECT_EQ(worker_alone(smoke, "teacher", GetParam()).at("digest"), smoke.digest("teacher"));
}

TEST_P(Ranks, TheWorkerAloneMakesTheSamePairs) {
  const FinishedSmoke smoke = finished_smoke();
  EXPECT_EQ(worker_alone(smoke, "pairs", GetParam()).at("digest"), smoke.digest("pairs"));
}

// 0: without mpirun.
INSTANTIATE_TEST_SUITE_P(Bits, Ranks, ::testing::Values(0, 1, 2, 4));

TEST(ServiceBits, TwoAndFourRanksMakeTheStudentOfOne) {
  const FinishedSmoke smoke = finished_smoke();
  const TempFolder folder;
  Service service(folder / "data");
  nlohmann::json spec = nlohmann::json::parse(slurp(smoke.run_folder("distill") + "/job.json"));
  spec.erase("output");
  for (const int ranks : {2, 4}) {
    spec["ranks"] = ranks;
    const std::string id = service.submit(spec).at(0);
    const nlohmann::json job = service.wait_for(id, {"succeeded"});
    EXPECT_EQ(job.at("digest"), smoke.digest("distill")) << ranks;
    EXPECT_EQ(job.at("result").at("ranks"), ranks);
    EXPECT_EQ(job.at("result").at("generator_sha256"), job.at("digest"));
  }
}

}  // namespace
}  // namespace onestep
