// From pictures to a one-step text-to-image model on the network of configs/sd15/tiny, in a few iterations: autoencoder -> latents ->
// teacher -> pairs -> distillation with a schedule -> evaluation by a detector -> export.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <signal.h>

#include <filesystem>
#include <memory>

#include "common/checkpoint_manifest.h"
#include "common/run_folder.h"
#include "integration/service.h"
#include "support/files.h"
#include "support/small_images.h"
#include "support/temp_folder.h"

namespace onestep {
namespace {

using ::testing::HasSubstr;
using nlohmann::json;

constexpr std::int64_t kClasses = 3;
const std::string kOptions = ONESTEP_SOURCE_DIR "/configs/sd15/tiny";

class TextTeacher : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = std::make_unique<TempFolder>();
    write_small_images(path("images.h5"), 12, 3, 64, kClasses);
    spit(path("prompts.txt"), "red apple\nbanana\nrocket\n");
    must(run("autoencoder", autoencoder()), "autoencoder");
    must(shell(program("make_text_base") + " " + kOptions + " " + path("autoencoder") + " " + path("base")), "base");
    must(run("prompts", {{"kind", "encode_prompts"}, {"teacher", path("base")}, {"prompts", path("prompts.txt")}}), "prompts");
    must(run("latents", latents()), "latents");
    must(run("teacher", teacher()), "teacher");
  }
  static void TearDownTestSuite() { folder_.reset(); }

  static std::string path(const std::string& name) { return *folder_ / name; }
  static json dataset() { return {{"path", path("images.h5")}}; }
  static json autoencoder() {
    return {{"kind", "train_autoencoder"}, {"seed", 3}, {"micro_batches", 2}, {"dataset", dataset()}, {"config", kOptions + "/vae"},
            {"images", 160}, {"batch", 4}, {"checkpoint", {{"every_iterations", 2}}}};
  }
  static json latents() { return {{"kind", "encode"}, {"dataset", dataset()}, {"autoencoder", path("base/vae")}, {"batch", 5}}; }
  static json teacher() {
    return {{"kind", "train_text_teacher"}, {"seed", 4}, {"micro_batches", 2}, {"base", path("base")}, {"latents", path("latents")},
            {"prompts", path("prompts")}, {"images", 320}, {"batch", 8}, {"checkpoint", {{"every_iterations", 2}}}};
  }
  static json with(json spec, const json& changes) {
    spec.merge_patch(changes);
    return spec;
  }
  static std::string command(const std::string& name, json spec, int ranks) {
    spec["name"] = name;
    spit(path(name + ".json"), spec.dump());
    return "mpirun --allow-run-as-root --oversubscribe --bind-to none -n " + std::to_string(ranks) + " onestep-worker " +
           path(name + ".json") + " --output " + path(name);
  }
  static ShellResult run(const std::string& name, const json& spec, int ranks = 1) { return shell(command(name, spec, ranks)); }
  static void must(const ShellResult& done, const std::string& what) {
    if (done.exit_status != 0) throw std::runtime_error(what + ": " + done.error);
  }
  static JobOutcome outcome(const std::string& name) { return *read_outcome(outcome_file(path(name))); }

  // The same digest from two ranks, and from a run that was killed and goes on.
  static void expect_same_bits(const std::string& name, const json& spec) {
    const ShellResult two = run(name + "_two", spec, 2);
    ASSERT_EQ(two.exit_status, 0) << two.error;
    EXPECT_EQ(outcome(name + "_two").digest, outcome(name).digest);
    const std::string killed = name + "_killed";
    shell(command(killed, spec, 1) + " >/dev/null 2>&1 & echo $!");
    wait_until("a checkpoint", 120, [&] { return !list_checkpoints(checkpoints_folder(path(killed))).empty(); });
    for (const pid_t worker : processes_with({"onestep-worker", path(killed)})) ::kill(worker, SIGKILL);
    wait_until("the end of the killed run", 60, [&] { return processes_with({"onestep-worker", path(killed)}).empty(); });
    ASSERT_FALSE(file_exists(outcome_file(path(killed)))) << "the run ended before it was killed";
    const ShellResult resumed = run(killed, spec, 2);
    ASSERT_EQ(resumed.exit_status, 0) << resumed.error;
    EXPECT_THAT(resumed.error, HasSubstr("resumed from"));
    EXPECT_EQ(outcome(killed).digest, outcome(name).digest);
  }
  static void expect_refused(const std::string& name, const json& spec, const std::string& why) {
    const ShellResult refused = run(name, spec);
    EXPECT_NE(refused.exit_status, 0) << name;
    EXPECT_THAT(refused.error, HasSubstr(why)) << name;
  }

  static std::unique_ptr<TempFolder> folder_;
};
std::unique_ptr<TempFolder> TextTeacher::folder_;

TEST_F(TextTeacher, TheAutoencoderIsTheSameOnTwoRanksAndAfterAKill) { expect_same_bits("autoencoder", autoencoder()); }

TEST_F(TextTeacher, TheTeacherIsTheSameOnTwoRanksAndAfterAKill) { expect_same_bits("teacher", teacher()); }

TEST_F(TextTeacher, ActivationCheckpointingChangesNoBits) {
  ASSERT_EQ(run("recomputed", with(teacher(), {{"activation_checkpointing", true}})).exit_status, 0);
  EXPECT_EQ(outcome("recomputed").digest, outcome("teacher").digest);
}

TEST_F(TextTeacher, DroppingTextMatters) {
  ASSERT_EQ(run("never", with(teacher(), {{"text_dropout", 0}})).exit_status, 0);
  EXPECT_NE(outcome("never").digest, outcome("teacher").digest);
}

TEST_F(TextTeacher, LatentsHaveUnitDeviation) {
  // The scaling factor was measured on the same images with the weights before their rounding to 16 bits.
  EXPECT_NEAR(outcome("latents").result.at("latent_deviation").get<double>(), 1, 0.1);
  EXPECT_EQ(outcome("latents").result.at("count"), 12);
}

TEST_F(TextTeacher, IsATeacherForTheNextJobs) {
  const json sampler = {{"kind", "ddim"}, {"steps", 3}, {"guidance_scale", 2}};
  const json text = {{"teacher", path("teacher")}, {"prompts", path("prompts")}};
  const json pairs = with(text, {{"kind", "generate_pairs"}, {"seed", 5}, {"count", 6}, {"rows_per_shard", 3}, {"batch", 3}, {"sampler", sampler}});
  ASSERT_EQ(run("pairs", pairs).exit_status, 0);
  const json plain = with(text, {{"kind", "distill"}, {"seed", 6}, {"micro_batches", 2}, {"pairs", path("pairs")}, {"warmup", {{"iterations", 2}, {"pairs", 4}}},
                                 {"fake_warmup", {{"iterations", 1}}}, {"checkpoint", {{"every_iterations", 2}}},
                                 {"dmd", {{"iterations", 6}, {"batch", 4}, {"pairs", 2}, {"guidance_scale", 2}}}});
  ASSERT_EQ(run("distill", plain).exit_status, 0);

  // Stages of dmd's own values change nothing; others do, on any number of ranks alike.
  const auto staged = [&](const json& schedule) {
    json spec = plain;
    spec["dmd"]["schedule"] = schedule;
    return spec;
  };
  ASSERT_EQ(run("same", staged({{{"from_iteration", 2}, {"lambda_reg", 0.1}}})).exit_status, 0);
  EXPECT_EQ(outcome("same").digest, outcome("distill").digest);
  const json schedule = {{{"from_iteration", 2}, {"lambda_reg", 1.0}}, {{"from_iteration", 4}, {"lambda_reg", 0.5}, {"t_hi", 0.5}}};
  ASSERT_EQ(run("staged", staged(schedule)).exit_status, 0);
  ASSERT_EQ(run("staged_two", staged(schedule), 2).exit_status, 0);
  EXPECT_NE(outcome("staged").digest, outcome("distill").digest);
  EXPECT_EQ(outcome("staged_two").digest, outcome("staged").digest);

  ASSERT_EQ(run("detector", {{"kind", "train_detector"}, {"seed", 1}, {"dataset", with(dataset(), {{"resolution", 32}})}, {"held_out", 3},
                             {"iterations", 5}, {"batch", 4}}).exit_status, 0);
  const json evaluate = {{"kind", "evaluate"}, {"seed", 7}, {"model", path("distill")}, {"prompts", path("prompts")},
                         {"detector", path("detector")}, {"dataset", with(dataset(), {{"resolution", 32}})}, {"count", 30}, {"batch", 5},
                         {"sampler", {{"kind", "one_step"}}}};
  for (const int ranks : {1, 2}) {
    const ShellResult done = run("evaluate" + std::to_string(ranks), evaluate, ranks);
    ASSERT_EQ(done.exit_status, 0) << done.error;
  }
  EXPECT_EQ(outcome("evaluate1").digest, outcome("evaluate2").digest);
  EXPECT_EQ(outcome("evaluate1").result.at("prompts_sha256"), outcome("prompts").digest);
  EXPECT_GE(outcome("evaluate1").result.at("class_accuracy").get<double>(), 0);
  EXPECT_GT(outcome("evaluate1").result.at("frechet").get<double>(), 0);
  ASSERT_EQ(run("of_checkpoint", with(evaluate, {{"model", list_checkpoints(checkpoints_folder(path("teacher"))).back()},
                                                 {"sampler", sampler}})).exit_status, 0);

  ASSERT_EQ(run("export", {{"kind", "export"}, {"model", path("distill")}}).exit_status, 0);
  EXPECT_EQ(shell("onestep verify " + path("export")).exit_status, 0);
  const ShellResult drawn = shell("onestep sample --model " + path("export") + " --count 2 --prompt banana --out " + path("x.png"));
  EXPECT_EQ(drawn.exit_status, 0) << drawn.error;
}

// DMD2 without pairs, its discriminator on latents of real images.
TEST_F(TextTeacher, ADiscriminatorSeesRealLatents) {
  const json gan = {{"latents", path("latents")}, {"lambda_generator", 0.1}};
  const json plain = {{"kind", "distill"}, {"seed", 6}, {"micro_batches", 2}, {"teacher", path("teacher")}, {"prompts", path("prompts")},
                      {"warmup", {{"iterations", 0}}}, {"fake_warmup", {{"iterations", 2}}}, {"checkpoint", {{"every_iterations", 2}}},
                      {"dmd", {{"iterations", 24}, {"batch", 4}, {"pairs", 0}, {"lambda_reg", 0}, {"guidance_scale", 2}}}};
  const json judged = with(plain, {{"dmd", {{"gan", gan}}}});
  ASSERT_EQ(run("plain", plain).exit_status, 0);
  const ShellResult done = run("judged", judged);
  ASSERT_EQ(done.exit_status, 0) << done.error;
  EXPECT_THAT(done.error, HasSubstr("discriminator_accuracy"));
  EXPECT_NE(outcome("judged").digest, outcome("plain").digest);
  expect_same_bits("judged", judged);
  ASSERT_EQ(run("half", with(judged, {{"dmd", {{"gan", {{"t_hi", 0.5}}}}}})).exit_status, 0);
  EXPECT_NE(outcome("half").digest, outcome("judged").digest);
  ASSERT_EQ(run("recomputed_judged", with(judged, {{"activation_checkpointing", true}})).exit_status, 0);
  EXPECT_EQ(outcome("recomputed_judged").digest, outcome("judged").digest);

  ASSERT_EQ(run("foreign", with(latents(), {{"autoencoder", path("autoencoder")}})).exit_status, 0);
  expect_refused("foreign_latents", with(judged, {{"dmd", {{"gan", {{"latents", path("foreign")}}}}}}), "autoencoder_sha256");
  ASSERT_EQ(run("export_judged", {{"kind", "export"}, {"model", path("judged")}}).exit_status, 0);
  EXPECT_EQ(shell("onestep verify " + path("export_judged")).exit_status, 0);
}

TEST_F(TextTeacher, WhatDoesNotFitIsRefused) {
  const std::string file = path("latents/latents.safetensors"), bytes = slurp(file);
  spit(file, with_flipped_bit(bytes, (bytes.size() - 4) * 8));
  expect_refused("damaged", teacher(), "the digest of its content");
  spit(file, bytes);
  ASSERT_EQ(run("others", with(latents(), {{"autoencoder", path("autoencoder")}})).exit_status, 0);
  expect_refused("other_autoencoder", with(teacher(), {{"latents", path("others")}}), "autoencoder_sha256");
  spit(path("two.txt"), "red apple\nbanana\n");
  ASSERT_EQ(run("two", {{"kind", "encode_prompts"}, {"teacher", path("base")}, {"prompts", path("two.txt")}}).exit_status, 0);
  expect_refused("two_prompts", with(teacher(), {{"prompts", path("two")}}), "expected 3, found 2");
  std::filesystem::copy(path("base"), path("weightless"), std::filesystem::copy_options::recursive);
  std::filesystem::remove(path("weightless/vae/diffusion_pytorch_model.safetensors"));
  expect_refused("without_weights", with(teacher(), {{"base", path("weightless")}}), "no such file");
  write_small_images(path("grey.h5"), 4, 1, 64, 2);
  expect_refused("grey", with(latents(), {{"dataset", {{"path", path("grey.h5")}}}}), "expected images of 3 channels");
}

}  // namespace
}  // namespace onestep
