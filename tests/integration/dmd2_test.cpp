// A distillation with all of DMD2's options at once: the same bits on 1, 2 and 4 ranks and after a kill; its student of several steps
// sampled, judged and exported.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <stdexcept>

#include "common/checkpoint_manifest.h"
#include "common/run_folder.h"
#include "common/safetensors_file.h"
#include "integration/finished_smoke.h"
#include "integration/service.h"
#include "support/files.h"
#include "support/temp_folder.h"

namespace onestep {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

const json kTimesteps = {80.0, 2.5, 0.75};

class Dmd2 : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = std::make_unique<TempFolder>();
    const FinishedSmoke smoke = finished_smoke();
    detector_ = smoke.run_folder("detector");
    spec_ = json::parse(slurp(smoke.run_folder("distill") + "/job.json"));
    dataset_ = spec_.at("evaluation").at("dataset");
    for (const char* key : {"output", "evaluation"}) spec_.erase(key);
    spec_["warmup"].update({{"iterations", 4}, {"pairs", 16}});
    spec_["fake_warmup"]["iterations"] = 3;
    spec_["student_timesteps"] = kTimesteps;
    spec_["checkpoint"]["every_iterations"] = 4;
    spec_["dmd"].update({{"iterations", 17}, {"batch", 16}, {"pairs", 8}, {"regression_joins_dm", true},
                         {"fake_updates_per_generator_update", 3}, {"gan", {{"dataset", dataset_}}}});
  }
  static void TearDownTestSuite() { folder_.reset(); }

  // One rank, undisturbed; the last line of its output.
  static ShellResult whole() {
    ShellResult run = worker(spec_, "whole", 0);
    if (run.exit_status != 0) throw std::runtime_error(run.error);
    return run;
  }

  // 0 ranks: without mpirun.
  static std::string command(const std::string& name, int ranks) {
    const std::string mpirun = "mpirun --allow-run-as-root --oversubscribe --bind-to none -n " + std::to_string(ranks) + " ";
    return (ranks > 0 ? mpirun : "") + "onestep-worker " + *folder_ / (name + ".json") + " --output " + *folder_ / name;
  }
  static ShellResult worker(const json& spec, const std::string& name, int ranks) {
    spit(*folder_ / (name + ".json"), spec.dump());
    return shell(command(name, ranks));
  }
  static std::string path(const std::string& name) { return *folder_ / name; }

  static std::unique_ptr<TempFolder> folder_;
  static std::string detector_;
  static json spec_, dataset_;
};
std::unique_ptr<TempFolder> Dmd2::folder_;
std::string Dmd2::detector_;
json Dmd2::spec_, Dmd2::dataset_;

// Killed where checkpoints lie 4 iterations apart and the generator's turns 3.
TEST_F(Dmd2, TheSameStudentOnMoreRanksAndAfterAKill) {
  const json digest = whole().last_line().at("digest");
  for (const int ranks : {2, 4}) {
    const ShellResult run = worker(spec_, "ranks" + std::to_string(ranks), ranks);
    ASSERT_EQ(run.exit_status, 0) << run.error;
    EXPECT_EQ(run.last_line().at("digest"), digest) << ranks;
  }
  spit(path("killed.json"), spec_.dump());
  const ShellResult killed = shell(command("killed", 2) + " & for i in $(seq 6000); do ls " + path("killed") +
                                   "/checkpoints/00000012-a1/manifest.json >/dev/null 2>&1 && break; sleep 0.02; done; kill -9 $!; wait");
  ASSERT_TRUE(killed.output.empty()) << "ended before it could be killed: " << killed.output;
  wait_until("its ranks are gone", 30, [&] { return processes_with({path("killed.json"), "onestep-worker"}).empty(); });
  const ShellResult again = shell(command("killed", 2));
  ASSERT_EQ(again.exit_status, 0) << again.error;
  EXPECT_THAT(again.error, HasSubstr("resumed from"));
  EXPECT_EQ(again.last_line().at("digest"), digest);
}

// Every option moves bits, so that the test above tells something of each; the checkpoints say the timesteps and carry the head.
TEST_F(Dmd2, EachOptionMakesAnotherStudent) {
  const ShellResult all = whole();
  const std::vector<std::pair<const char*, json>> changes = {
      {"joins", {{"dmd", {{"regression_joins_dm", false}}}}},
      {"turns", {{"dmd", {{"fake_updates_per_generator_update", 2}}}}},
      {"gan", {{"dmd", {{"gan", nullptr}}}}},
      {"steps", {{"student_timesteps", nullptr}}}};
  for (const auto& [name, change] : changes) {
    json spec = spec_;
    spec.merge_patch(change);
    const ShellResult run = worker(spec, name, 0);
    ASSERT_EQ(run.exit_status, 0) << run.error;
    EXPECT_NE(run.last_line().at("digest"), all.last_line().at("digest")) << name;
  }
  const auto folders = list_checkpoints(checkpoints_folder(path("whole")));
  ASSERT_FALSE(folders.empty());
  const CheckpointManifest manifest = read_checkpoint_manifest(folders.back(), true);
  EXPECT_EQ(manifest.state.at("student_timesteps"), kTimesteps);
  const auto length = [&manifest](const std::string& buffer) {
    std::int64_t end = 0;
    for (const CheckpointPiece& piece : manifest.pieces) {
      if (piece.buffer == buffer) end = std::max(end, piece.offset + piece.length);
    }
    return end;
  };
  EXPECT_GT(length("fake.parameters"), length("generator.parameters"));
  EXPECT_EQ(length("fake.exp_avg"), length("fake.parameters"));
  EXPECT_THAT(all.error, HasSubstr("discriminator_accuracy"));
  EXPECT_THAT(all.error, HasSubstr("loss_gan"));
}

// Also: the head and the real images' batch are in the plan, which foretells the run as closely as that of any other.
TEST_F(Dmd2, TheStudentIsPlannedSampledJudgedAndExportedInItsOwnSteps) {
  (void)whole();
  const json evaluate = {{"name", "e"}, {"kind", "evaluate"}, {"model", path("whole")}, {"detector", detector_}, {"dataset", dataset_},
                         {"count", 200}, {"batch", 100}, {"sampler", {{"kind", "few_step"}, {"timesteps", kTimesteps}}}};
  const ShellResult judged = worker(evaluate, "judged", 0), on_two = worker(evaluate, "judged2", 2);
  ASSERT_EQ(judged.exit_status, 0) << judged.error;
  EXPECT_EQ(slurp(path("judged/panel.txt")), "student, 3 steps\n");
  EXPECT_EQ(on_two.last_line().at("digest"), judged.last_line().at("digest"));
  json other = evaluate;
  other["sampler"] = {{"kind", "one_step"}};
  const ShellResult refused = worker(other, "refused", 0);
  EXPECT_EQ(refused.exit_status, 4);
  EXPECT_THAT(refused.error, HasSubstr("expected [80.0,2.5,0.75], the steps of " + path("whole") + ", found [80.0]"));

  const ShellResult exported = worker({{"name", "x"}, {"kind", "export"}, {"model", path("whole")}}, "exported", 0);
  ASSERT_EQ(exported.exit_status, 0) << exported.error;
  const json config = json::parse(slurp(path("exported/config.json")));
  EXPECT_EQ(config.at("sampler"), "few_step");
  EXPECT_EQ(config.at("student_timesteps"), kTimesteps);
  EXPECT_THAT(slurp(path("exported/README.md")), HasSubstr("3 network calls, at sigma = [80.0,2.5,0.75]"));
  const SafetensorsFile samples(path("exported/samples.safetensors"));
  EXPECT_NE(samples.find("noise_2"), nullptr);
  EXPECT_EQ(samples.find("noise_3"), nullptr);
  const json sample = {{"name", "s"}, {"kind", "sample"}, {"model", path("exported")}, {"count", 4}, {"out", path("grid.png")}};
  EXPECT_EQ(worker(sample, "sampled", 0).exit_status, 0);

  const auto planned = [](const json& spec, const std::string& name) {
    spit(path(name + ".json"), spec.dump());
    const ShellResult run = shell("onestep plan " + path(name + ".json") + " --json --ranks 1");
    EXPECT_EQ(run.exit_status, 0) << run.error;
    return run.last_line().at("jobs").at(0).at("bytes_a_rank");
  };
  constexpr double kPromise = 0.10;  // of the measured peak
  const json bytes = planned(spec_, "plan");
  const double measured = read_outcome(outcome_file(path("whole")))->result.at("peak_bytes_a_rank");
  EXPECT_NEAR(bytes.at("total").get<double>(), measured, kPromise * measured);
  json plain = spec_;
  plain["dmd"].erase("gan");
  EXPECT_GT(bytes.at("parameters"), planned(plain, "plan_plain").at("parameters"));
}

TEST_F(Dmd2, WithoutPairsNothingOfThemIsNeeded) {
  json spec = spec_;
  spec.erase("pairs");
  spec["warmup"]["iterations"] = 0;
  spec["dmd"].update({{"pairs", 0}, {"lambda_reg", 0}, {"regression_joins_dm", false}, {"iterations", 4}});
  const ShellResult run = worker(spec, "no_pairs", 0);
  EXPECT_EQ(run.exit_status, 0) << run.error;
  // Real images of other shapes or classes are refused before anything is trained.
  spec["dmd"]["gan"]["dataset"]["resolution"] = 28;
  const ShellResult refused = worker(spec, "misfit", 0);
  EXPECT_EQ(refused.exit_status, 4);
  EXPECT_THAT(refused.error, HasSubstr("expected images of 1 x 14 x 14 and 10 classes as the network has, found 1 x 28 x 28"));
}

}  // namespace
}  // namespace onestep
