// What `onestep plan` says of memory against what a run is seen to take.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "integration/finished_smoke.h"
#include "integration/service.h"
#include "support/files.h"
#include "support/temp_folder.h"

namespace onestep {
namespace {

constexpr double kTolerance = 0.10;  // of the measured peak: the promise of `onestep plan`

double planned_bytes(const std::string& file, const std::string& options) {
  const ShellResult run = shell("onestep plan " + file + " --json " + options);
  EXPECT_EQ(run.exit_status, 0) << run.error;
  return run.last_line().at("jobs").at(0).at("bytes_a_rank").at("total").get<double>();
}

double measured_bytes(const std::string& file, const std::string& run_folder, int ranks) {
  const ShellResult run = shell("mpirun --allow-run-as-root --oversubscribe --bind-to none -n " + std::to_string(ranks) +
                                " onestep-worker " + file + " --output " + run_folder);
  EXPECT_EQ(run.exit_status, 0) << run.error;
  return nlohmann::json::parse(slurp(run_folder + "/outcome.json")).at("result").at("peak_bytes_a_rank").get<double>();
}

// A network whose state and activations outweigh the process: a few iterations, with checkpoints.
TEST(Plan, ATeachersPeakIsForetold) {
  const FinishedSmoke smoke = finished_smoke();
  const TempFolder folder;
  nlohmann::json spec = nlohmann::json::parse(slurp(smoke.run_folder("teacher") + "/job.json"));
  spec.erase("output");
  spec["images"] = 48;
  spec["batch"] = 16;
  spec["micro_batches"] = 2;
  spec["checkpoint"]["every_iterations"] = 1;
  spec["network"]["model_channels"] = 128;
  spec["network"]["channels_per_head"] = 64;
  spec["network"]["num_blocks"] = 3;
  const std::string file = folder / "teacher.json";
  spit(file, spec.dump());
  for (const int ranks : {1, 2}) {
    const double planned = planned_bytes(file, "--ranks " + std::to_string(ranks));
    const double measured = measured_bytes(file, folder / "run" + std::to_string(ranks), ranks);
    EXPECT_NEAR(planned, measured, kTolerance * measured) << ranks;
  }
}

TEST(Plan, ADistillationsPeakIsForetold) {
  const FinishedSmoke smoke = finished_smoke();
  const TempFolder folder;
  nlohmann::json spec = nlohmann::json::parse(slurp(smoke.run_folder("distill") + "/job.json"));
  spec.erase("output");
  spec.erase("evaluation");
  const std::string file = folder / "distill.json";
  spit(file, spec.dump());
  const double planned = planned_bytes(file, "--ranks 1");
  const double measured = measured_bytes(file, folder / "run", 1);
  EXPECT_NEAR(planned, measured, kTolerance * measured);
}

TEST(Plan, WhatCanNotFitIsRefusedWithTheNumbers) {
  const ShellResult run = shell("onestep plan " + source_folder() + "/configs/digits/smoke/pipeline.json --memory 64M");
  EXPECT_EQ(run.exit_status, 8);
  EXPECT_THAT(run.output, testing::HasSubstr("DOES NOT FIT into 64.0 MiB"));
  EXPECT_THAT(run.output, testing::HasSubstr("pair set on disk"));
}

}  // namespace
}  // namespace onestep
