// Text to image through the whole product, on a Stable Diffusion of a few thousand weights: prompts -> embeddings -> guided pairs ->
// distillation -> evaluation -> export.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <signal.h>

#include <memory>

#include "common/checkpoint_manifest.h"
#include "common/embedding_file.h"
#include "common/hash.h"
#include "common/pair_file.h"
#include "common/run_folder.h"
#include "common/safetensors_file.h"
#include "integration/service.h"
#include "support/files.h"
#include "support/keyed_feature_nets.h"
#include "support/ldm_file.h"
#include "support/small_images.h"
#include "support/temp_folder.h"
#include "worker/models/inception.h"
#include "worker/models/vgg_lpips.h"

namespace onestep {
namespace {

using ::testing::HasSubstr;
using nlohmann::json;

constexpr std::int64_t kPrompts = 5, kPairCount = 10;

// A tiny pipeline, its prompts and pairs, and a student, made once.
class TextToImage : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = std::make_unique<TempFolder>();
    const ShellResult tiny = shell(program("make_tiny_sd") + " " + path("tiny"));
    if (tiny.exit_status != 0) throw std::runtime_error(tiny.error);
    spit(path("prompts.txt"), "a photo of a cat\na red car\nthe sea at night\nan old tree\nit's 2024\n");
    for (const auto& [name, spec] : {std::pair<std::string, json>{"encode", encode()}, {"pairs", pairs()}, {"distill", distill()}}) {
      const ShellResult done = run(name, spec);
      if (done.exit_status != 0) throw std::runtime_error(name + ": " + done.error);
    }
  }
  static void TearDownTestSuite() { folder_.reset(); }

  static std::string path(const std::string& name) { return *folder_ / name; }
  static json encode() {
    return {{"name", "encode"}, {"kind", "encode_prompts"}, {"teacher", path("tiny")}, {"prompts", path("prompts.txt")}, {"batch", 2}};
  }
  static json pairs() {
    return {{"name", "pairs"}, {"kind", "generate_pairs"}, {"seed", 5}, {"teacher", path("tiny")}, {"prompts", path("encode")},
            {"count", kPairCount}, {"rows_per_shard", 5}, {"batch", 5},
            {"sampler", {{"kind", "pndm"}, {"steps", 3}, {"guidance_scale", 3}}}};
  }
  static json distill() {
    return {{"name", "distill"}, {"kind", "distill"}, {"seed", 7}, {"micro_batches", 2}, {"teacher", path("tiny")},
            {"prompts", path("encode")}, {"pairs", path("pairs")}, {"checkpoint", {{"every_iterations", 2}}},
            {"warmup", {{"iterations", 2}, {"pairs", 4}}}, {"fake_warmup", {{"iterations", 2}}},
            {"dmd", {{"iterations", 16}, {"batch", 4}, {"pairs", 2}, {"guidance_scale", 3}}}};
  }
  static json with(json spec, const json& changes) {
    spec.merge_patch(changes);
    return spec;
  }
  static std::string command(const std::string& name, const json& spec, int ranks) {
    spit(path(name + ".json"), spec.dump());
    return "mpirun --allow-run-as-root --oversubscribe --bind-to none -n " + std::to_string(ranks) + " onestep-worker " +
           path(name + ".json") + " --output " + path(name);
  }
  static ShellResult run(const std::string& name, const json& spec, int ranks = 1) { return shell(command(name, spec, ranks)); }
  static JobOutcome outcome(const std::string& name) { return *read_outcome(outcome_file(path(name))); }
  static void expect_refused(const std::string& name, const json& spec, const std::string& why) {
    const ShellResult refused = run(name, spec);
    EXPECT_NE(refused.exit_status, 0) << name;
    EXPECT_THAT(refused.error, HasSubstr(why)) << name;
    EXPECT_FALSE(file_exists(outcome_file(path(name)))) << name;
  }

  static std::unique_ptr<TempFolder> folder_;
};
std::unique_ptr<TempFolder> TextToImage::folder_;

TEST_F(TextToImage, EmbeddingsAndPairsSayWhatTheyAreOf) {
  const EmbeddingFile file(path("encode") + "/" + kEmbeddingFileName);
  file.verify();
  EXPECT_EQ(file.info().count, kPrompts);
  EXPECT_EQ(file.info().tokens, 77);
  EXPECT_EQ(file.info().width, 16);
  EXPECT_EQ(file.info().prompts_sha256, sha256_file(path("prompts.txt")));
  EXPECT_EQ(file.info().digest(), outcome("encode").digest);
  const PairSetManifest set = read_pair_manifest(path("pairs"));
  EXPECT_EQ(set.info.prompts_sha256, file.info().digest());
  const PairShardReader shard(path("pairs"), set.info, set.shards.at(1));
  std::vector<float> noise(4 * 8 * 8), image(4 * 8 * 8);
  for (std::int64_t row = 0; row < 5; ++row) {
    std::int64_t label = -1;
    shard.read_row(row, noise, image, label);
    EXPECT_EQ(label, (5 + row) % kPrompts);
  }
  ASSERT_EQ(run("pairs2", pairs(), 2).exit_status, 0);
  EXPECT_EQ(outcome("pairs2").digest, outcome("pairs").digest);
}

TEST_F(TextToImage, TwoRanksAndAKilledRunMakeTheSameStudent) {
  ASSERT_EQ(run("two", distill(), 2).exit_status, 0);
  EXPECT_EQ(outcome("two").digest, outcome("distill").digest);
  ASSERT_EQ(outcome("two").result.at("ranks"), 2);

  const ShellResult started = shell(command("killed", distill(), 1) + " >/dev/null 2>&1 & echo $!");
  wait_until("a checkpoint", 60, [] { return !list_checkpoints(checkpoints_folder(path("killed"))).empty(); });
  for (const pid_t worker : processes_with({"onestep-worker", path("killed")})) ::kill(worker, SIGKILL);
  wait_until("the end of the killed run", 60, [] { return processes_with({"onestep-worker", path("killed")}).empty(); });
  ASSERT_FALSE(file_exists(outcome_file(path("killed")))) << "the run ended before it was killed";
  const ShellResult resumed = run("killed", distill(), 2);
  ASSERT_EQ(resumed.exit_status, 0) << resumed.error;
  EXPECT_THAT(resumed.error, HasSubstr("going on"));
  EXPECT_EQ(outcome("killed").digest, outcome("distill").digest);
}

TEST_F(TextToImage, ActivationCheckpointingMakesTheSameStudent) {
  ASSERT_EQ(run("recomputed", with(distill(), {{"activation_checkpointing", true}})).exit_status, 0);
  EXPECT_EQ(outcome("recomputed").digest, outcome("distill").digest);
}

// The same weights in one file of the original code's names make the same pairs, student and export.
TEST_F(TextToImage, ATeacherOfOneFileIsTheFolders) {
  const std::string file = path("ldm.safetensors");
  write_ldm_file(path("tiny"), file);
  const json one = {{"teacher", file}, {"like", path("tiny")}};
  ASSERT_EQ(run("one_encode", with(encode(), one)).exit_status, 0);
  EXPECT_EQ(outcome("one_encode").digest, outcome("encode").digest);
  ASSERT_EQ(run("one_pairs", with(pairs(), one)).exit_status, 0);
  EXPECT_EQ(outcome("one_pairs").digest, outcome("pairs").digest);
  ASSERT_EQ(run("one_distill", with(with(distill(), one), {{"pairs", path("one_pairs")}, {"prompts", path("one_encode")}})).exit_status, 0);
  EXPECT_EQ(outcome("one_distill").digest, outcome("distill").digest);
  ASSERT_EQ(run("one_export", {{"name", "export"}, {"kind", "export"}, {"model", path("one_distill")}}).exit_status, 0);
  EXPECT_EQ(sha256_file(path("one_export/unet/diffusion_pytorch_model.safetensors")), outcome("distill").digest);
  EXPECT_EQ(shell("onestep verify " + path("one_export")).exit_status, 0);
}

// Stable Diffusion 2.1's prediction, from the teacher to a folder whose pictures are the run's.
TEST_F(TextToImage, AStudentThatPredictsVIsExported) {
  ASSERT_EQ(shell(program("make_tiny_sd") + " " + path("v") + " float32 v_prediction").exit_status, 0);
  const json of_v = {{"teacher", path("v")}};
  ASSERT_EQ(run("v_pairs", with(pairs(), of_v)).exit_status, 0);
  EXPECT_NE(outcome("v_pairs").digest, outcome("pairs").digest);
  ASSERT_EQ(run("v_distill", with(with(distill(), of_v), {{"pairs", path("v_pairs")}})).exit_status, 0);
  ASSERT_EQ(run("v_export", {{"name", "export"}, {"kind", "export"}, {"model", path("v_distill")}}).exit_status, 0);
  EXPECT_EQ(json::parse(slurp(path("v_export/scheduler/scheduler_config.json"))).at("prediction_type"), "v_prediction");
  const auto picture = [](const std::string& model) {
    const ShellResult drawn = shell("onestep sample --model " + path(model) + " --count 2 --prompt 'a cat' --out " + path("v.png"));
    EXPECT_EQ(drawn.exit_status, 0) << drawn.error;
    return sha256_file(path("v.png"));
  };
  EXPECT_EQ(picture("v_export"), picture("v_distill"));
}

TEST_F(TextToImage, ExportsAreReproducibleAndSampleAsTheRunDoes) {
  const std::string checkpoint = list_checkpoints(checkpoints_folder(path("distill"))).back();
  const json spec = {{"name", "export"}, {"kind", "export"}, {"model", path("distill")}};
  ASSERT_EQ(run("export", spec).exit_status, 0);
  ASSERT_EQ(run("again", with(spec, {{"model", checkpoint}})).exit_status, 0);
  EXPECT_EQ(slurp(path("again/SHA256SUMS")), slurp(path("export/SHA256SUMS")));
  EXPECT_EQ(outcome("again").digest, sha256_file(path("export/SHA256SUMS")));
  EXPECT_EQ(sha256_file(path("export/unet/diffusion_pytorch_model.safetensors")), outcome("distill").digest);
  const std::string card = slurp(path("export/README.md"));
  EXPECT_THAT(card, HasSubstr(outcome("pairs").digest));
  EXPECT_THAT(card, HasSubstr("Distillation steps: 20"));
  EXPECT_THAT(card, HasSubstr(read_pair_manifest(path("pairs")).info.teacher_sha256));
  EXPECT_EQ(shell("onestep verify " + path("export")).exit_status, 0);

  const auto picture = [](const std::string& model, const std::string& prompts) {
    const ShellResult drawn = shell("onestep sample --model " + path(model) + " --count 4 --out " + path("grid.png") + prompts);
    EXPECT_EQ(drawn.exit_status, 0) << drawn.error;
    return sha256_file(path("grid.png"));
  };
  const std::string two = " --prompt 'a cat' --prompt 'the sea'";
  EXPECT_EQ(picture("export", two), picture("distill", two));
  EXPECT_NE(picture("export", " --prompt 'a cat'"), picture("export", two));
  EXPECT_NE(picture("tiny", two), picture("export", two));

  ASSERT_EQ(run("bf16", with(spec, {{"dtype", "bf16"}})).exit_status, 0);
  ASSERT_EQ(run("unet", with(spec, {{"dtype", "bf16"}, {"format", "unet_file"}})).exit_status, 0);
  EXPECT_EQ(slurp(path("unet/unet.safetensors")), slurp(path("bf16/unet/diffusion_pytorch_model.safetensors")));
  EXPECT_EQ(SafetensorsFile(path("unet/unet.safetensors")).tensors().front().dtype, DType::kBF16);
  picture("bf16", two);
  std::string damaged = slurp(path("bf16/onestep.json"));
  damaged.replace(damaged.find("unet_sha256") + 15, 4, "0000");
  spit(path("bf16/onestep.json"), damaged);
  EXPECT_THAT(shell("onestep sample --model " + path("bf16") + " --prompt a --out " + path("x.png")).error, HasSubstr("(onestep.json)"));
}

TEST_F(TextToImage, EvaluationIsOfDecodedImagesAndTheCardNamesIt) {
  const KeyedWeights weights(inception_tensors());
  write_safetensors(path("inception.safetensors"), weights.views, {});
  write_small_images(path("real.h5"), 6, 3, 16, 1);
  const json spec = {{"name", "evaluate"}, {"kind", "evaluate"}, {"seed", 9}, {"model", path("distill")}, {"prompts", path("encode")},
                     {"detector", path("inception.safetensors")}, {"dataset", {{"path", path("real.h5")}}},
                     {"count", 6}, {"batch", 3}, {"sampler", {{"kind", "one_step"}}}};
  for (const int ranks : {1, 2}) {
    const ShellResult done = run("evaluate" + std::to_string(ranks), spec, ranks);
    ASSERT_EQ(done.exit_status, 0) << done.error;
  }
  const JobOutcome judged = outcome("evaluate1");
  EXPECT_EQ(judged.digest, outcome("evaluate2").digest);
  EXPECT_EQ(judged.result.at("model_sha256"), outcome("distill").digest);
  EXPECT_EQ(judged.result.at("prompts_sha256"), outcome("encode").digest);
  EXPECT_GT(judged.result.at("fid").get<double>(), 0);
  const json exported = {{"name", "export"}, {"kind", "export"}, {"model", path("distill")}, {"evaluation", path("evaluate1")}};
  ASSERT_EQ(run("judged", exported).exit_status, 0);
  EXPECT_THAT(slurp(path("judged/README.md")), HasSubstr("Metric: FID " + judged.result.at("fid").dump() + " on 6 images"));
  // The export is the same model: its pipeline's own text encoder has the same content.
  const ShellResult again = run("of_export", with(spec, {{"model", path("judged")}, {"metrics", {"fid"}}}));
  ASSERT_EQ(again.exit_status, 0) << again.error;
  EXPECT_EQ(outcome("of_export").digest, judged.digest);
}

TEST_F(TextToImage, LpipsComparesWhatTheDecoderMakes) {
  const KeyedWeights weights(lpips_tensors());
  write_safetensors(path("lpips.safetensors"), weights.views, {});
  const json spec = with(distill(), {{"distance", "lpips"}, {"decoder", path("tiny/vae")},
                                     {"lpips", {{"weights", {path("lpips.safetensors")}}, {"resize", 0}}},
                                     {"warmup", {{"iterations", 1}}}, {"dmd", {{"iterations", 1}}}});
  for (const int ranks : {1, 2}) {
    const ShellResult done = run("lpips" + std::to_string(ranks), spec, ranks);
    ASSERT_EQ(done.exit_status, 0) << done.error;
  }
  EXPECT_EQ(outcome("lpips1").digest, outcome("lpips2").digest);
  ASSERT_EQ(run("l2", with(spec, {{"distance", "l2"}, {"decoder", ""}, {"lpips", nullptr}})).exit_status, 0);
  EXPECT_NE(outcome("lpips1").digest, outcome("l2").digest);
}

TEST_F(TextToImage, AStudentOfSeveralStepsGoesAllTheWay) {
  const json steps = {999.0, 499.0};
  const json spec = with(distill(), {{"student_timesteps", steps}, {"dmd", {{"iterations", 4}, {"fake_updates_per_generator_update", 2},
                                                                            {"regression_joins_dm", true}}}});
  for (const int ranks : {1, 2}) {
    const ShellResult done = run("steps" + std::to_string(ranks), spec, ranks);
    ASSERT_EQ(done.exit_status, 0) << done.error;
  }
  EXPECT_EQ(outcome("steps1").digest, outcome("steps2").digest);
  ASSERT_EQ(run("steps_export", {{"name", "export"}, {"kind", "export"}, {"model", path("steps1")}}).exit_status, 0);
  EXPECT_THAT(slurp(path("steps_export/README.md")), HasSubstr("timesteps=[999,499], guidance_scale=1.0"));
  EXPECT_EQ(json::parse(slurp(path("steps_export/onestep.json"))).at("student_timesteps"), steps);
  const auto picture = [](const std::string& model) {
    const ShellResult drawn = shell("onestep sample --model " + path(model) + " --count 2 --out " + path("steps.png") + " --prompt 'a cat'");
    EXPECT_EQ(drawn.exit_status, 0) << drawn.error;
    return sha256_file(path("steps.png"));
  };
  EXPECT_EQ(picture("steps_export"), picture("steps1"));
  expect_refused("not_from_the_last", with(spec, {{"student_timesteps", {749, 249}}}), "student_timesteps: expected steps from the network's last, 999");
}

TEST_F(TextToImage, WhatDoesNotFitIsRefused) {
  json without = pairs();
  without.erase("prompts");
  expect_refused("no_prompts", without, "prompts: expected an encode_prompts folder for");
  expect_refused("sigma_sampler", with(pairs(), {{"sampler", {{"kind", "heun"}}}}), "expected a network whose");
  spit(path("other.txt"), "something else\n");
  ASSERT_EQ(run("other", with(encode(), {{"prompts", path("other.txt")}})).exit_status, 0);
  expect_refused("other_prompts", with(distill(), {{"prompts", path("other")}}), "prompts_sha256: expected " + outcome("other").digest);
  expect_refused("teacher_export", {{"name", "e"}, {"kind", "export"}, {"model", path("tiny")}}, "expected a distilled generator to export");

  // Another text encoder: the same files but for one weight.
  std::filesystem::copy(path("tiny"), path("changed"), std::filesystem::copy_options::recursive);
  const std::string file = path("changed/text_encoder/model.safetensors");
  const std::string bytes = slurp(file);
  spit(file, with_flipped_bit(bytes, (bytes.size() - 2) * 8));
  expect_refused("other_encoder", with(pairs(), {{"teacher", path("changed")}}), "text_encoder_sha256: expected ");

  // A student whose pipeline has changed since.
  std::filesystem::copy(path("distill"), path("moved"), std::filesystem::copy_options::recursive);
  json config = json::parse(slurp(path("moved/config.json")));
  config["network"]["pipeline"]["path"] = path("changed");
  spit(path("moved/config.json"), config.dump(2));
  expect_refused("changed_parts", {{"name", "e"}, {"kind", "export"}, {"model", path("moved")}}, "which the network was trained with");
}

TEST_F(TextToImage, ThePlanSaysWhatADistillationTakes) {
  spit(path("plan.json"), distill().dump());
  const ShellResult planned = shell("onestep plan " + path("plan.json") + " --json");
  ASSERT_EQ(planned.exit_status, 0) << planned.error;
  const json job = planned.last_line().at("jobs").at(0);
  EXPECT_EQ(job.at("pair_set_bytes"), kPairCount * (2 * 4 * 8 * 8 * 4 + 2 * 8));
  const double told = job.at("bytes_a_rank").at("total").get<double>();
  const double seen = outcome("distill").result.at("peak_bytes_a_rank").get<double>();
  EXPECT_NEAR(told, seen, 0.10 * seen);
}

}  // namespace
}  // namespace onestep
