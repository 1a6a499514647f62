// The small pipeline through the service, and what a user does with the result.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "cli/job_commands.h"
#include "integration/finished_smoke.h"
#include "integration/service.h"
#include "support/files.h"
#include "support/temp_folder.h"

namespace onestep {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;

TEST(SmokePipeline, EveryJobSucceedsAtTheFirstAttempt) {
  const FinishedSmoke smoke = finished_smoke();
  std::vector<std::string> names;
  for (const nlohmann::json& job : smoke.last_line.at("jobs")) {
    names.push_back(job.at("name"));
    EXPECT_EQ(job.at("state"), "succeeded") << job;
    EXPECT_EQ(job.at("attempts"), 1) << job;
    EXPECT_THAT(job.at("digest").get<std::string>(), MatchesRegex("[0-9a-f]{64}")) << job;
    EXPECT_EQ(job.size(), 5u) << job;
  }
  EXPECT_THAT(names, ElementsAre("detector", "teacher", "pairs", "distill", "regression_only", "evaluate_real",
                                 "evaluate_teacher", "evaluate_teacher_one_step", "evaluate_regression_only",
                                 "evaluate_one_step", "export"));
}

TEST(SmokePipeline, EveryRunFolderIsWhole) {
  const FinishedSmoke smoke = finished_smoke();
  for (const char* job : {"detector", "teacher", "pairs", "distill", "regression_only", "export"}) {
    const ShellResult run = shell("onestep verify " + smoke.run_folder(job));
    EXPECT_EQ(run.exit_status, 0) << run.error;
    EXPECT_THAT(run.output, HasSubstr(smoke.digest(job))) << job;
  }
}

TEST(SmokePipeline, ARestartedCoordinatorKnowsTheJobsAndReports) {
  const FinishedSmoke smoke = finished_smoke();
  const Service service(smoke.data);
  const TempFolder folder;
  const ShellResult report = shell("onestep report digits-smoke-p1 --out " + folder / "out" + " --url " + service.url());
  ASSERT_EQ(report.exit_status, 0) << report.error;
  EXPECT_THAT(report.output, HasSubstr("distilled, one step"));
  const nlohmann::json saved = nlohmann::json::parse(slurp(folder / "out/report.json"));
  EXPECT_EQ(saved.at("generator_sha256"), smoke.digest("distill"));
  EXPECT_EQ(saved.at("ranks"), 1);
  EXPECT_GT(saved.at("frechet").at("one_step"), 0.0);
  EXPECT_TRUE(slurp(folder / "out/grid.png").starts_with("\x89PNG"));
}

TEST(SmokePipeline, EachCommittedCheckpointWasEvaluatedOrSaysWhyNot) {
  const FinishedSmoke smoke = finished_smoke();
  const Service service(smoke.data);
  // The last one may have been cut off when the pipeline's coordinator was stopped: this one runs it again.
  nlohmann::json items;
  wait_until("the evaluations end", 300, [&] {
    items = service.client().get("/api/v1/jobs?limit=200").at("items");
    for (const nlohmann::json& job : items) {
      if (!has_ended(job.at("state"))) return false;
    }
    return true;
  });
  int evaluated = 0;
  for (const nlohmann::json& job : items) {
    if (!job.at("name").get<std::string>().starts_with("distill-eval-")) continue;
    const std::string state = job.at("state");
    EXPECT_TRUE(state == "succeeded" || (state == "cancelled" && !job.at("reason").get<std::string>().empty())) << job;
    evaluated += state == "succeeded" ? 1 : 0;
  }
  EXPECT_GE(evaluated, 1);
}

TEST(Export, SamplesWithNothingElse) {
  const FinishedSmoke smoke = finished_smoke();
  const TempFolder folder;
  const std::string model = folder / "model";
  std::filesystem::create_directories(model);
  for (const char* name : {"config.json", "model.safetensors", "README.md", "SHA256SUMS", "samples.safetensors"}) {
    std::filesystem::copy_file(smoke.run_folder("export") + "/" + name, model + "/" + name);
  }
  const auto draw = [&](const std::string& options, const std::string& out) {
    const ShellResult run = shell("onestep sample --json --model " + model + " --out " + folder / out + " " + options);
    EXPECT_EQ(run.exit_status, 0) << run.error;
    return run.last_line().at("digest").get<std::string>();
  };
  const std::string first = draw("--count 20 --seed 5", "a.png");
  EXPECT_EQ(draw("--count 20 --seed 5", "b.png"), first);
  EXPECT_EQ(slurp(folder / "a.png"), slurp(folder / "b.png"));
  EXPECT_NE(draw("--count 20 --seed 6", "c.png"), first);
  EXPECT_NE(draw("--count 20 --seed 5 --class 3", "d.png"), first);
  EXPECT_TRUE(slurp(folder / "a.png").starts_with("\x89PNG"));
}

// Weights rounded to 16 bits: half the bytes, named in config.json, and images close by.
TEST(Export, SixteenBitsLoadAndSampleAsTheyWereWritten) {
  const FinishedSmoke smoke = finished_smoke();
  const TempFolder folder;
  for (const std::string dtype : {"bf16", "fp16"}) {
    const nlohmann::json spec = {{"name", "export"}, {"kind", "export"}, {"model", smoke.run_folder("distill")}, {"dtype", dtype}};
    spit(folder / "export.json", spec.dump());
    ASSERT_EQ(shell("onestep-worker " + folder / "export.json" + " --output " + folder / dtype).exit_status, 0);
    ASSERT_EQ(shell("onestep-worker " + folder / "export.json" + " --output " + folder / "again").exit_status, 0);
    EXPECT_EQ(slurp(folder / dtype + "/SHA256SUMS"), slurp(folder / "again/SHA256SUMS")) << dtype;
    EXPECT_EQ(nlohmann::json::parse(slurp(folder / dtype + "/config.json")).at("dtype"), dtype);
    const auto bytes = [](const std::string& run) { return std::filesystem::file_size(run + "/model.safetensors"); };
    EXPECT_LT(bytes(folder / dtype), bytes(smoke.run_folder("export")) * 0.7);
    const std::string card = slurp(folder / dtype + "/README.md");
    EXPECT_THAT(card, testing::HasSubstr("Weights: ema in " + dtype));
    EXPECT_THAT(card, testing::HasSubstr("noise-image pairs of SHA-256 `" + smoke.digest("pairs")));
    const ShellResult drawn = shell("onestep sample --model " + folder / dtype + " --out " + folder / "a.png");
    EXPECT_EQ(drawn.exit_status, 0) << drawn.error;
    std::filesystem::remove_all(folder / "again");
  }
}

TEST(Export, TheCommandWritesACheckedFolder) {
  const FinishedSmoke smoke = finished_smoke();
  const TempFolder folder;
  Service service(folder / "data");
  nlohmann::json spec = nlohmann::json::parse(slurp(smoke.run_folder("distill") + "/job.json"));
  spec.erase("output");
  spec.erase("evaluation");
  const std::string id = service.submit(spec).at(0);
  service.wait_for(id, {"succeeded"});
  const ShellResult run = shell("onestep export " + id + " --out " + folder / "exported" + " --url " + service.url());
  ASSERT_EQ(run.exit_status, 0) << run.error;
  EXPECT_EQ(shell("onestep verify " + folder / "exported").exit_status, 0);
  EXPECT_EQ(slurp(folder / "exported/model.safetensors"), slurp(smoke.run_folder("export") + "/model.safetensors"));
  EXPECT_EQ(shell("onestep export " + id + " --out " + folder / "exported" + " --url " + service.url()).exit_status, 8);
}

}  // namespace
}  // namespace onestep
