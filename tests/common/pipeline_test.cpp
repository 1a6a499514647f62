#include "common/pipeline.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <map>

#include "common/error.h"

namespace onestep {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

json job(const std::string& name, const std::string& model,
         const std::vector<std::string>& after = {}) {
  json document = {{"name", name}, {"kind", "export"}, {"model", model}};
  if (!after.empty()) document["after"] = after;
  return document;
}

json pipeline_of(const std::vector<json>& jobs) { return {{"pipeline", "p"}, {"jobs", jobs}}; }

std::vector<std::string> order_of(const Pipeline& pipeline) {
  std::vector<std::string> names;
  for (const PipelineJob& entry : pipeline.jobs) names.push_back(entry.spec.name);
  return names;
}

std::vector<std::string> problems(const json& document) {
  std::vector<std::string> texts;
  try {
    parse_pipeline(document, "/base", "pipeline.json");
  } catch (const ConfigError& error) {
    for (const Violation& violation : error.violations()) {
      texts.push_back(violation.pointer + ": " + violation.message);
    }
  }
  return texts;
}

TEST(Pipeline, OrdersJobsAfterWhatTheyNeedAndKeepsTheFilesOrderElsewhere) {
  const Pipeline pipeline =
      parse_pipeline(pipeline_of({job("last", "@middle", {"first"}), job("other", "/m"),
                                  job("middle", "@first"), job("first", "/m")}),
                     "/base", "test");
  EXPECT_EQ(pipeline.name, "p");
  EXPECT_THAT(order_of(pipeline), ElementsAre("other", "first", "middle", "last"));
  EXPECT_THAT(pipeline.jobs[3].after, ElementsAre("first", "middle"));
  EXPECT_THAT(pipeline.jobs[2].after, ElementsAre("first"));
}

TEST(Pipeline, ASingleSpecIsAPipelineOfOne) {
  const Pipeline pipeline = parse_pipeline(job("alone", "m"), "/base", "test");
  EXPECT_EQ(pipeline.name, "alone");
  ASSERT_THAT(order_of(pipeline), ElementsAre("alone"));
  EXPECT_EQ(std::get<ExportSpec>(pipeline.jobs[0].spec.options).model, "/base/m");
  EXPECT_THAT(problems(job("alone", "@other")),
              ElementsAre("/model: expected a job of this pipeline (alone), found 'other'"));
}

TEST(Pipeline, RefusesUnknownNamesDuplicatesAndCircles) {
  EXPECT_THAT(problems(pipeline_of({job("a", "@c"), job("b", "/m", {"d"})})),
              ElementsAre("/jobs/0/model: expected a job of this pipeline (a, b), found 'c'",
                          "/jobs/1/after: expected a job of this pipeline (a, b), found 'd'"));
  EXPECT_THAT(problems(pipeline_of({job("a", "/m"), job("a", "/m")})),
              ElementsAre("/jobs/1/name: expected a name of its own, found 'a' twice"));
  EXPECT_THAT(problems(pipeline_of({job("a", "@a")})),
              ElementsAre("/jobs/0/model: expected to come after other jobs, found 'a' itself"));
  EXPECT_THAT(problems(pipeline_of({job("free", "/m"), job("a", "@b"), job("b", "@a")})),
              ElementsAre(testing::AllOf(HasSubstr("found a circle"), HasSubstr("a, b"))));
}

TEST(Pipeline, AReferenceStandsForAJobWhoseOutputFitsThere) {
  const json detector = {
      {"name", "detector"}, {"kind", "train_detector"}, {"dataset", {{"path", "d.h5"}}}};
  const json pairs = {{"name", "pairs"}, {"kind", "generate_pairs"}, {"teacher", "@detector"}};
  const json judge = {{"name", "judge"},          {"kind", "evaluate"},
                      {"detector", "@detector"},  {"dataset", {{"path", "@pairs"}}},
                      {"model", "/m"},            {"compare", {"/x", "@pairs"}}};
  EXPECT_THAT(
      problems(pipeline_of({detector, pairs, judge})),
      ElementsAre("/jobs/1/teacher: expected a job of kind train_teacher or train_text_teacher or export, found @detector, "
                  "which is of kind train_detector",
                  "/jobs/2/dataset/path: expected a path, which no job writes, found @pairs, which is "
                  "of kind generate_pairs",
                  "/jobs/2/compare/1: expected a job of kind evaluate, found @pairs, which is of kind "
                  "generate_pairs"));
}

TEST(Pipeline, TwoJobsCanNotWriteOneFolder) {
  json first = job("a", "/m"), second = job("b", "/m");
  first["output"] = "runs/x";
  second["output"] = "runs/y/../x";
  EXPECT_THAT(problems(pipeline_of({first, second})),
              ElementsAre("/jobs/1/output: expected a folder of its own, found /base/runs/x, which job "
                          "'a' writes"));
}

TEST(Pipeline, ReportsEveryProblemOfEveryJob) {
  json first = job("a", "/m");
  first["weigths"] = "ema";
  json second = job("b", "/m");
  second["ranks"] = 0;
  second["after"] = "a";
  json document = pipeline_of({first, second, 7});
  document["pipelin"] = "x";
  EXPECT_THAT(problems(document),
              UnorderedElementsAre("/pipelin: unknown key; did you mean 'pipeline'?",
                                   "/jobs/0/weigths: unknown key; did you mean 'weights'?",
                                   "/jobs/1/after: expected a list of strings, found \"a\"",
                                   "/jobs/1/ranks: expected an integer from 1 to 65536, found 0",
                                   "/jobs/2: expected an object, found 7"));
}

TEST(Pipeline, RefusesEmptyAndShapelessDocuments) {
  EXPECT_THAT(problems(pipeline_of({})),
              ElementsAre(HasSubstr("/jobs: expected a list of at least one job")));
  EXPECT_THAT(problems({{"pipeline", "p"}, {"jobs", 3}}),
              ElementsAre(HasSubstr("/jobs: expected a list")));
  EXPECT_THAT(problems(json::array()), ElementsAre(": expected an object, found []"));
  json unnamed = pipeline_of({job("a", "/m")});
  unnamed.erase("pipeline");
  EXPECT_THAT(problems(unnamed),
              ElementsAre(HasSubstr("/pipeline: expected a string that is not empty")));
}

TEST(PipelineOverride, GoesToTheNamedJob) {
  json document = pipeline_of({job("a", "/m"), job("b", "/m")});
  apply_pipeline_override(document, "b.checkpoint.keep_last=5");
  EXPECT_FALSE(document["jobs"][0].contains("checkpoint"));
  EXPECT_EQ(document["jobs"][1]["checkpoint"]["keep_last"], 5);
  json single = job("a", "/m");
  apply_pipeline_override(single, "a.seed=1");
  apply_pipeline_override(single, "checkpoint.keep_last=2");
  apply_pipeline_override(single, "ranks=3");
  EXPECT_EQ(single["seed"], 1);
  EXPECT_EQ(single["ranks"], 3);
  EXPECT_EQ(single["checkpoint"]["keep_last"], 2);
  EXPECT_FALSE(single.contains("a"));
}

TEST(PipelineOverride, RefusesUnknownJobs) {
  for (const char* bad : {"c.seed=1", "seed=1", "a=1"}) {
    json document = pipeline_of({job("a", "/m"), job("b", "/m")});
    const json before = document;
    try {
      apply_pipeline_override(document, bad);
      ADD_FAILURE() << bad;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kUsage);
      EXPECT_THAT(error.what(), HasSubstr(bad));
    }
    EXPECT_EQ(document, before);
  }
}

// ---- The files under configs/. ----

Pipeline parse_file(const std::string& path) {
  const std::filesystem::path file(path);
  return parse_pipeline(read_json_file(path), file.parent_path().string(), path);
}

std::map<std::string, PipelineJob> jobs_by_name(const Pipeline& pipeline) {
  std::map<std::string, PipelineJob> jobs;
  for (const PipelineJob& entry : pipeline.jobs) jobs[entry.spec.name] = entry;
  return jobs;
}

const std::string kConfigs = ONESTEP_SOURCE_DIR "/configs";
const std::vector<std::string> kDigitsJobs = {"detector",
                                              "teacher",
                                              "pairs",
                                              "distill",
                                              "regression_only",
                                              "evaluate_real",
                                              "evaluate_teacher",
                                              "evaluate_teacher_one_step",
                                              "evaluate_regression_only",
                                              "evaluate_one_step",
                                              "export"};

TEST(Configs, EveryFileParses) {
  int num_files = 0;
  auto entries = std::filesystem::recursive_directory_iterator(kConfigs);
  for (const auto& entry : entries) {
    // A pipeline folder of diffusers: no job specs.
    if (entry.is_directory() && std::filesystem::exists(entry.path() / "model_index.json")) entries.disable_recursion_pending();
    if (!entry.is_regular_file() || entry.path().filename() == "README.md") continue;
    ++num_files;
    EXPECT_EQ(entry.path().extension(), ".json") << entry.path();
    const std::string path = entry.path().string();
    if (entry.path().parent_path().filename() == "networks") {
      EXPECT_NO_THROW(network_spec_from_json(read_json_file(path), path)) << path;
    } else {
      EXPECT_NO_THROW(parse_file(path)) << path;
    }
  }
  EXPECT_GE(num_files, 3);
}

// Values that the papers give, and what follows from them; the README of each folder has the sources.
TEST(Configs, ThePublishedRecipesAreThePapers) {
  struct Recipe {
    const char* file;
    std::int64_t pairs, steps, batch, regression_batch, iterations;
    double learning_rate, lambda_reg, guidance;
  };
  for (const Recipe& recipe : {Recipe{"cifar10/cond", 100'000, 18, 392, 392, 300'000, 5e-5, 0.25, 1},
                               Recipe{"cifar10/uncond", 500'000, 18, 392, 392, 300'000, 5e-5, 0.5, 1},
                               Recipe{"imagenet64/cond", 25'000, 256, 336, 336, 350'000, 2e-6, 0.25, 1},
                               Recipe{"sd15/laion_guidance3", 500'000, 50, 2304, 1152, 20'000, 1e-5, 0.25, 3},
                               Recipe{"sd15/laion_guidance8", 12'000'000, 50, 1024, 256, 165'000, 1e-5, 0.1, 8}}) {
    SCOPED_TRACE(recipe.file);
    auto jobs = jobs_by_name(parse_file(kConfigs + "/" + recipe.file + ".json"));
    const auto pairs = std::get<GeneratePairsSpec>(jobs["pairs"].spec.options);
    const auto distill = std::get<DistillSpec>(jobs["distill"].spec.options);
    EXPECT_EQ(pairs.count, recipe.pairs);
    EXPECT_EQ(pairs.sampler.steps, recipe.steps);
    EXPECT_EQ(pairs.sampler.S_churn, 0);
    EXPECT_EQ(pairs.sampler.guidance_scale, recipe.guidance);
    EXPECT_EQ(distill.dmd.batch, recipe.batch);
    EXPECT_EQ(distill.dmd.pairs, recipe.regression_batch);
    EXPECT_EQ(distill.dmd.iterations, recipe.iterations);
    EXPECT_EQ(distill.dmd.lambda_reg, recipe.lambda_reg);
    EXPECT_EQ(distill.dmd.lambda_dm, 1.0);
    EXPECT_EQ(distill.dmd.guidance_scale, recipe.guidance);
    EXPECT_EQ(distill.dmd.regression_joins_dm, recipe.guidance > 1);
    EXPECT_EQ(distill.distance, "lpips");
    EXPECT_EQ(distill.warmup.iterations + distill.fake_warmup.iterations, 0);
    for (const OptimizerSpec& optimizer : {distill.dmd.generator, distill.dmd.fake}) {
      EXPECT_EQ(optimizer.learning_rate, recipe.learning_rate);
      EXPECT_EQ(optimizer.beta1, 0.9);
      EXPECT_EQ(optimizer.beta2, 0.999);
      EXPECT_EQ(optimizer.weight_decay, 0.01);
      EXPECT_EQ(optimizer.clip_norm, 10.0);
      EXPECT_EQ(optimizer.rampup_iterations, 500);
      EXPECT_EQ(optimizer.schedule, "constant");
    }
    if (recipe.guidance > 1) continue;
    // Levels 20 and 980 of Karras's 1,000 from 0.002 to 80, rho 7.
    const auto level = [](double i) { return std::pow(std::pow(80.0, 1 / 7.0) + (999 - i) / 999 * (std::pow(0.002, 1 / 7.0) - std::pow(80.0, 1 / 7.0)), 7); };
    EXPECT_NEAR(distill.dmd.sigma_lo, level(20), 1e-6);   // as many digits as the file has
    EXPECT_NEAR(distill.dmd.sigma_hi, level(980), 1e-4);
  }
}

TEST(Configs, TheEmojiPipelineGoesFromPicturesToADiffusersFolder) {
  const Pipeline pipeline = parse_file(kConfigs + "/sd15/tiny.json");
  EXPECT_THAT(order_of(pipeline), testing::Contains("teacher"));
  auto jobs = jobs_by_name(pipeline);
  EXPECT_THAT(jobs["teacher"].after, testing::UnorderedElementsAre("latents", "prompts"));
  EXPECT_EQ(std::get<TrainTextTeacherSpec>(jobs["teacher"].spec.options).text_dropout, 0.1);
  EXPECT_EQ(std::get<DistillSpec>(jobs["distill"].spec.options).teacher, "@teacher");
}

TEST(Configs, TheDigitsPipelineIsTheRecipe) {
  const Pipeline pipeline = parse_file(kConfigs + "/digits/pipeline.json");
  EXPECT_EQ(pipeline.name, "digits");
  EXPECT_THAT(order_of(pipeline), testing::ElementsAreArray(kDigitsJobs));
  auto jobs = jobs_by_name(pipeline);
  const std::string dataset = ONESTEP_SOURCE_DIR "/build/data/digits.h5";

  const auto detector = std::get<TrainDetectorSpec>(jobs["detector"].spec.options);
  EXPECT_EQ(detector.dataset.path, dataset);
  EXPECT_EQ(detector.dataset.resolution, 14);
  EXPECT_EQ(detector.iterations, 1000);
  EXPECT_EQ(detector.held_out, 500);
  EXPECT_EQ(jobs["detector"].spec.ranks, 1);

  const auto teacher = std::get<TrainTeacherSpec>(jobs["teacher"].spec.options);
  EXPECT_EQ(teacher.images, 450000);
  EXPECT_EQ(teacher.batch, 128);
  EXPECT_EQ(teacher.optimizer.learning_rate, 2e-3);
  EXPECT_EQ(teacher.network.model_channels, 32);

  const auto pairs = std::get<GeneratePairsSpec>(jobs["pairs"].spec.options);
  EXPECT_EQ(pairs.count, 500);
  EXPECT_EQ(pairs.sampler.steps, 18);
  EXPECT_EQ(pairs.sampler.sigma_max, 80.0);
  EXPECT_THAT(jobs["pairs"].after, ElementsAre("teacher"));

  const auto distill = std::get<DistillSpec>(jobs["distill"].spec.options);
  EXPECT_EQ(distill.warmup.iterations, 250);
  EXPECT_EQ(distill.warmup.pairs, 192);
  EXPECT_EQ(distill.fake_warmup.iterations, 60);
  EXPECT_EQ(distill.dmd.iterations, 300);
  EXPECT_EQ(distill.dmd.batch, 128);
  EXPECT_EQ(distill.dmd.pairs, 64);
  EXPECT_EQ(distill.dmd.lambda_reg, 0.1);
  EXPECT_EQ(distill.dmd.sigma_lo, 0.5);
  EXPECT_EQ(distill.dmd.sigma_hi, 5.0);
  EXPECT_EQ(distill.dmd.generator.learning_rate, 1e-4);
  EXPECT_EQ(distill.dmd.fake.learning_rate, 1e-3);
  EXPECT_EQ(distill.ema_half_life_images, 6000);
  EXPECT_EQ(distill.evaluation.detector, "@detector");
  EXPECT_EQ(distill.evaluation.count, 2000);
  EXPECT_EQ(jobs["distill"].spec.checkpoint.every_iterations, 100);

  for (const char* name : {"teacher", "distill", "regression_only"}) {
    EXPECT_EQ(jobs[name].spec.ranks, 2) << name;
    EXPECT_EQ(jobs[name].spec.micro_batches, 2) << name;
  }
  EXPECT_EQ(jobs["detector"].spec.seed, 1u);
  EXPECT_EQ(jobs["teacher"].spec.seed, 11u);
  EXPECT_EQ(jobs["pairs"].spec.seed, 12u);
  EXPECT_EQ(jobs["distill"].spec.seed, 13u);
}

TEST(Configs, TheDigitsBaselineSeesAsManyImagesAsTheStudent) {
  auto jobs = jobs_by_name(parse_file(kConfigs + "/digits/pipeline.json"));
  const auto images = [&jobs](const char* name) {
    const auto& spec = std::get<DistillSpec>(jobs[name].spec.options);
    return spec.warmup.iterations * spec.warmup.pairs +
           spec.dmd.iterations * (spec.dmd.batch + spec.dmd.pairs);
  };
  EXPECT_EQ(images("regression_only"), 105'600);
  EXPECT_EQ(images("distill"), images("regression_only"));
  const auto baseline = std::get<DistillSpec>(jobs["regression_only"].spec.options);
  EXPECT_EQ(baseline.dmd.iterations, 0);
  EXPECT_EQ(baseline.fake_warmup.iterations, 0);
  EXPECT_EQ(baseline.warmup.optimizer.schedule, "cosine");
  EXPECT_EQ(baseline.warmup.optimizer.rampup_iterations, 20);
}

TEST(Configs, TheDigitsEvaluationsDifferOnlyInWhatTheyJudge) {
  auto jobs = jobs_by_name(parse_file(kConfigs + "/digits/pipeline.json"));
  const auto evaluation = [&jobs](const char* name) {
    return std::get<EvaluateSpec>(jobs[name].spec.options);
  };
  EXPECT_EQ(evaluation("evaluate_real").source, "real_split_half");
  EXPECT_EQ(evaluation("evaluate_teacher").model, "@teacher");
  EXPECT_EQ(evaluation("evaluate_teacher").sampler.kind, "heun");
  EXPECT_EQ(evaluation("evaluate_teacher").sampler.steps, 18);
  EXPECT_EQ(evaluation("evaluate_teacher_one_step").model, "@teacher");
  EXPECT_EQ(evaluation("evaluate_regression_only").model, "@regression_only");
  EXPECT_EQ(evaluation("evaluate_one_step").model, "@distill");
  EXPECT_THAT(evaluation("evaluate_one_step").compare,
              ElementsAre("@evaluate_real", "@evaluate_teacher", "@evaluate_teacher_one_step"));
  for (const char* name :
       {"evaluate_teacher_one_step", "evaluate_regression_only", "evaluate_one_step"}) {
    EXPECT_EQ(evaluation(name).sampler.kind, "one_step") << name;
  }
  for (const auto& [name, entry] : jobs) {
    if (entry.spec.kind != "evaluate") continue;
    EXPECT_EQ(std::get<EvaluateSpec>(entry.spec.options).count, 5000) << name;
    EXPECT_EQ(std::get<EvaluateSpec>(entry.spec.options).detector, "@detector") << name;
  }
}

// Every student is judged in its own steps; without pairs, since DMD2 has none.
TEST(Configs, TheDmd2PipelinesAddOneOptionEach) {
  const auto student = [](const std::string& name) {
    auto jobs = jobs_by_name(parse_file(kConfigs + "/digits/dmd2_" + name + ".json"));
    const auto distill = std::get<DistillSpec>(jobs["distill"].spec.options);
    const auto evaluate = std::get<EvaluateSpec>(jobs["evaluate_student"].spec.options);
    EXPECT_EQ(distill.pairs, "") << name;
    EXPECT_EQ(evaluate.sampler.timesteps, distill.student_timesteps) << name;
    EXPECT_EQ(evaluate.sampler.kind, distill.student_timesteps.empty() ? "one_step" : "few_step") << name;
    EXPECT_GT(distill.dmd.fake_updates_per_generator_update, 1) << name;
    return distill;
  };
  EXPECT_FALSE(student("ttur").dmd.gan.is_on());
  EXPECT_TRUE(student("gan").dmd.gan.is_on());
  EXPECT_THAT(student("gan").student_timesteps, testing::IsEmpty());
  EXPECT_THAT(student("two_steps").student_timesteps, testing::SizeIs(2));
  EXPECT_THAT(student("four_steps").student_timesteps, testing::SizeIs(4));
}

// The recipes that are measured side by side are those of the pipelines.
TEST(Configs, TheDmd2QualityPipelineHasTheSameStudents) {
  auto quality = jobs_by_name(parse_file(kConfigs + "/digits/dmd2_quality.json"));
  for (const char* name : {"ttur", "gan", "two_steps", "four_steps"}) {
    auto jobs = jobs_by_name(parse_file(kConfigs + "/digits/dmd2_" + std::string(name) + ".json"));
    const auto config = [](JobSpec spec) {
      std::get<DistillSpec>(spec.options).evaluation = {};
      return bit_relevant_config(spec);
    };
    EXPECT_EQ(config(quality["distill_" + std::string(name)].spec), config(jobs["distill"].spec)) << name;
  }
  auto digits = jobs_by_name(parse_file(kConfigs + "/digits/pipeline.json"));
  EXPECT_EQ(bit_relevant_config(quality["distill_dmd"].spec), bit_relevant_config(digits["distill"].spec));
}

TEST(Configs, TheSmokePipelineHasTheSameJobsAndRunsOnFourRanks) {
  const std::string path = kConfigs + "/digits/smoke/pipeline.json";
  const Pipeline pipeline = parse_file(path);
  EXPECT_EQ(pipeline.name, "digits-smoke");
  EXPECT_THAT(order_of(pipeline), testing::ElementsAreArray(kDigitsJobs));
  auto jobs = jobs_by_name(pipeline);
  const auto detector = std::get<TrainDetectorSpec>(jobs["detector"].spec.options);
  EXPECT_EQ(detector.dataset.path, ONESTEP_SOURCE_DIR "/build/data/digits.h5");
  for (const char* ranks : {"1", "2", "4"}) {
    json document = read_json_file(path);
    apply_pipeline_override(document, std::string("distill.ranks=") + ranks);
    EXPECT_NO_THROW(parse_pipeline(document, kConfigs + "/digits/smoke", path)) << ranks;
  }
  json document = read_json_file(path);
  apply_pipeline_override(document, "distill.ranks=3");
  EXPECT_THAT(problems(document), ElementsAre(HasSubstr("ranks 3 can't share 4 micro-batches")));
}

TEST(Configs, TheStudentAloneIsThePipelinesStudent) {
  const JobSpec alone = parse_file(kConfigs + "/digits/distill.json").jobs.at(0).spec;
  JobSpec student = jobs_by_name(parse_file(kConfigs + "/digits/pipeline.json"))["distill"].spec;
  student = substitute_references(student, [](const std::string& name) {
    return ONESTEP_SOURCE_DIR "/build/runs/digits/" + name;
  });
  EXPECT_THAT(differing_keys(bit_relevant_config(student), bit_relevant_config(alone)), IsEmpty());
  EXPECT_EQ(alone.output, ONESTEP_SOURCE_DIR "/build/runs/digits/distill");
}

}  // namespace
}  // namespace onestep
