#include "coordinator/checkpoint_registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <limits>

#include "common/checkpoint_manifest.h"
#include "common/durable_file.h"
#include "common/error.h"
#include "common/run_folder.h"
#include "support/files.h"
#include "support/temp_folder.h"

namespace onestep {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

std::string write_checkpoint(const std::string& run, std::int64_t iteration, int attempt) {
  const std::string folder =
      checkpoints_folder(run) + "/" + checkpoint_folder_name(iteration, attempt);
  create_folders_durably(folder);
  CheckpointManifest manifest;
  manifest.kind = "distill";
  manifest.attempt = attempt;
  manifest.iteration = iteration;
  manifest.images = iteration * 128;
  manifest.config_sha256 = std::string(64, 'a');
  manifest.config = json::object();
  manifest.state = json::object();
  write_checkpoint_manifest(folder, manifest);
  return folder;
}

CheckpointRecord evaluated(std::int64_t iteration, std::optional<double> frechet,
                           bool best = false) {
  CheckpointRecord checkpoint;
  checkpoint.folder = "/c/" + checkpoint_folder_name(iteration, 1);
  checkpoint.iteration = iteration;
  checkpoint.images = iteration * 128;
  checkpoint.attempt = 1;
  checkpoint.frechet = frechet;
  checkpoint.score = frechet;
  checkpoint.best = best;
  return checkpoint;
}

TEST(CheckpointRegistry, TakesACommittedCheckpointOfTheRunFolderOnly) {
  const json good = {{"attempt", 2},    {"iteration", 300},
                     {"images", 38400}, {"folder", "/elsewhere/run/checkpoints/00000300-a2"},
                     {"digest", "d"},   {"bytes", 12}};
  const CheckpointRecord checkpoint = committed_checkpoint("distill-4", "/data/run", good, 5.0);
  EXPECT_EQ(checkpoint.folder, checkpoints_folder("/data/run") + "/00000300-a2");
  EXPECT_EQ(checkpoint.iteration, 300);
  EXPECT_EQ(checkpoint.images, 38400);
  EXPECT_EQ(checkpoint.bytes, 12);
  json bad = good;
  bad["folder"] = "/etc";
  EXPECT_THROW(committed_checkpoint("distill-4", "/data/run", bad, 5.0), Error);
  for (const char* key : {"attempt", "iteration", "images", "folder", "digest", "bytes"}) {
    bad = good;
    bad.erase(key);
    try {
      committed_checkpoint("distill-4", "/data/run", bad, 5.0);
      ADD_FAILURE() << "taken without " << key;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kCorrupt);
      EXPECT_THAT(error.what(), HasSubstr(key));
    }
  }
}

TEST(CheckpointRegistry, FindsWhatIsOnDiskAndPassesOverABadManifest) {
  TempFolder folder;
  EXPECT_TRUE(checkpoints_on_disk("j", folder.path(), 1).empty());
  write_checkpoint(folder.path(), 10, 1);
  const std::string bad = write_checkpoint(folder.path(), 20, 1);
  write_checkpoint(folder.path(), 30, 2);
  spit(bad + "/manifest.json", "{");
  const std::vector<CheckpointRecord> found = checkpoints_on_disk("j", folder.path(), 1);
  ASSERT_EQ(found.size(), 2U);
  EXPECT_EQ(found[0].iteration, 10);
  EXPECT_EQ(found[1].iteration, 30);
  EXPECT_EQ(found[1].attempt, 2);
  EXPECT_EQ(found[1].images, 3840);
  EXPECT_EQ(found[1].folder, checkpoints_folder(folder.path()) + "/00000030-a2");
  EXPECT_EQ(found[1].digest, checkpoint_digest(found[1].folder));
}

TEST(CheckpointRegistry, ProgressGrowsWithCheckpointsAndShards) {
  TempFolder folder;
  EXPECT_EQ(progress_on_disk(folder.path()), 0);
  write_checkpoint(folder.path(), 10, 1);
  EXPECT_EQ(progress_on_disk(folder.path()), 10);
  write_checkpoint(folder.path(), 10, 2);
  EXPECT_EQ(progress_on_disk(folder.path()), 10) << "the same iteration again is no progress";
  write_checkpoint(folder.path(), 15, 2);
  EXPECT_EQ(progress_on_disk(folder.path()), 15);
  spit(folder / "pairs-00000.h5", "");
  EXPECT_EQ(progress_on_disk(folder.path()), 16);
}

TEST(CheckpointRegistry, AnEvaluationIsAJobThatTheWorkerUnderstands) {
  JobSpec distill;
  distill.name = "distill";
  distill.kind = "distill";
  distill.ranks = 2;
  distill.seed = 13;
  DistillSpec options;
  options.generator_sigma = 40.0;
  options.evaluation.detector = "/data/detector";
  options.evaluation.dataset.path = "/data/digits.h5";
  options.evaluation.count = 500;
  distill.options = options;
  const JobSpec spec = evaluation_spec(distill, evaluated(300, std::nullopt));
  const JobSpec parsed = parse_job_spec(to_json(spec), "/", "test");
  EXPECT_EQ(parsed.name, "distill-eval-300");
  EXPECT_EQ(parsed.ranks, 1);
  EXPECT_EQ(parsed.seed, 13U);
  const auto& evaluate = std::get<EvaluateSpec>(parsed.options);
  EXPECT_EQ(evaluate.model, "/c/00000300-a1");
  EXPECT_EQ(evaluate.sampler.kind, "one_step");
  EXPECT_EQ(evaluate.sampler.sigma_max, 40.0);
  EXPECT_EQ(evaluate.count, 500);
  EXPECT_EQ(evaluate.detector, "/data/detector");
  EXPECT_EQ(evaluate.prompts, "");

  JobSpec few_steps = distill;
  options.student_timesteps = {40.0, 2.5};
  few_steps.options = options;
  options.student_timesteps.clear();
  const JobSpec few_parsed = parse_job_spec(to_json(evaluation_spec(few_steps, evaluated(300, std::nullopt))), "/", "test");
  const auto& judged = std::get<EvaluateSpec>(few_parsed.options);
  EXPECT_EQ(judged.sampler.kind, "few_step");
  EXPECT_EQ(judged.sampler.timesteps, (std::vector<double>{40.0, 2.5}));

  const DistillSpec usual;
  options.generator_sigma = usual.generator_sigma;
  options.prompts = "/jobs/encode-1";
  options.evaluation.detector = "/data/inception.safetensors";
  distill.options = options;
  const JobSpec text = parse_job_spec(to_json(evaluation_spec(distill, evaluated(300, std::nullopt))), "/", "test");
  EXPECT_EQ(std::get<EvaluateSpec>(text.options).prompts, "/jobs/encode-1");
}

TEST(CheckpointRegistry, FiguresBecomeMetricsOfTheParent) {
  const std::vector<MetricPoint> points =
      evaluation_metrics({{"frechet", 2.5},
                          {"class_accuracy", 0.97},
                          {"panel", "comparison.png"},
                          {"broken", std::numeric_limits<double>::quiet_NaN()}},
                         evaluated(300, std::nullopt));
  ASSERT_EQ(points.size(), 2U);
  EXPECT_EQ(points[0].key, "eval.class_accuracy");
  EXPECT_EQ(points[1].key, "eval.frechet");
  EXPECT_EQ(points[1].value, 2.5);
  EXPECT_EQ(points[1].images, 38400);
  EXPECT_EQ(points[1].iteration, 300);
}

TEST(CheckpointRegistry, TheLowestOrTheHighestScoreIsTheBest) {
  const auto changed = [](const std::vector<CheckpointRecord>& checkpoints, bool highest = false) {
    std::vector<std::pair<std::int64_t, bool>> result;
    for (const CheckpointRecord& one : mark_best(checkpoints, highest)) {
      result.emplace_back(one.iteration, one.best);
    }
    return result;
  };
  using Change = std::pair<std::int64_t, bool>;
  EXPECT_THAT(changed({evaluated(10, std::nullopt)}), ElementsAre());
  EXPECT_THAT(changed({evaluated(10, 3.0), evaluated(20, 2.0), evaluated(30, 2.0)}),
              ElementsAre(Change{20, true}));
  EXPECT_THAT(changed({evaluated(10, 3.0, true), evaluated(20, 2.0)}),
              ElementsAre(Change{10, false}, Change{20, true}));
  EXPECT_THAT(changed({evaluated(10, 1.0, true), evaluated(20, 2.0)}), ElementsAre());
  EXPECT_THAT(changed({evaluated(10, 0.9), evaluated(20, 0.95), evaluated(30, 0.95)}, true), ElementsAre(Change{20, true}));
}

TEST(CheckpointRegistry, OnlyFiniteNumbersAreFigures) {
  const json result = {{"a", 2.5}, {"b", "text"}, {"c", std::numeric_limits<double>::infinity()}};
  EXPECT_EQ(finite_figure(result, "a"), 2.5);
  for (const char* name : {"b", "c", "d"}) EXPECT_EQ(finite_figure(result, name), std::nullopt) << name;
  EXPECT_EQ(finite_figure(json(), "a"), std::nullopt);
}

TEST(CheckpointRegistry, PinsKeepWhatIsWantedAndOnlyThat) {
  TempFolder folder;
  for (const std::int64_t iteration : {10, 20, 30, 40}) {
    write_checkpoint(folder.path(), iteration, 1);
  }
  std::vector<CheckpointRecord> known = checkpoints_on_disk("j", folder.path(), 1);
  CheckpointRecord gone = known[0];
  gone.folder = checkpoints_folder(folder.path()) + "/00000005-a1";
  known.push_back(gone);
  set_pins(known, {known[0].folder, gone.folder});
  set_pins(known, {known[1].folder, gone.folder});
  remove_old_checkpoints(checkpoints_folder(folder.path()), 1);
  std::vector<std::int64_t> left;
  for (const CheckpointRecord& one : checkpoints_on_disk("j", folder.path(), 1)) {
    left.push_back(one.iteration);
  }
  EXPECT_THAT(left, ElementsAre(20, 40));
}

}  // namespace
}  // namespace onestep
