#include "common/job_spec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace onestep {
namespace {

using nlohmann::json;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

const std::string kBase = "/project/configs/digits";

json minimal(const std::string& kind) {
  json document = {{"name", "job"}, {"kind", kind}};
  const json dataset = {{"path", "../../build/data/digits.h5"}, {"resolution", 14}};
  if (kind == "train_detector" || kind == "train_teacher") document["dataset"] = dataset;
  if (kind == "train_autoencoder") document.update({{"dataset", dataset}, {"config", "vae"}});
  if (kind == "encode") document.update({{"dataset", dataset}, {"autoencoder", "@autoencoder"}});
  if (kind == "train_text_teacher") document.update({{"base", "sd15"}, {"latents", "@latents"}, {"prompts", "@prompts"}});
  if (kind == "encode_prompts") document.update({{"teacher", "sd15"}, {"prompts", "prompts.txt"}});
  if (kind == "generate_pairs") document["teacher"] = "@teacher";
  if (kind == "distill") document.update({{"teacher", "@teacher"}, {"pairs", "runs/pairs"}});
  if (kind == "evaluate")
    document.update({{"dataset", dataset}, {"detector", "@detector"}, {"model", "@distill"}});
  if (kind == "export") document["model"] = "@distill";
  if (kind == "sample") document.update({{"model", "/exports/digits"}, {"out", "grid.png"}});
  return document;
}

template <class Options>
Options options_of(const std::string& kind) {
  return std::get<Options>(parse_job_spec(minimal(kind), kBase, "test").options);
}

// "pointer: message" of everything wrong with the document.
std::vector<std::string> problems(const json& document) {
  std::vector<std::string> texts;
  for (const Violation& violation : check_job_spec(document, kBase, "").violations) {
    texts.push_back(violation.pointer + ": " + violation.message);
  }
  return texts;
}

json with(const std::string& kind, const std::vector<std::string>& assignments) {
  json document = minimal(kind);
  for (const std::string& assignment : assignments) apply_override(document, assignment);
  return document;
}

TEST(JobSpec, KindsAreTheVariantsAlternatives) {
  ASSERT_EQ(job_kinds().size(), std::variant_size_v<JobOptions>);
  for (std::size_t i = 0; i < job_kinds().size(); ++i) {
    const JobSpec spec = parse_job_spec(minimal(job_kinds()[i]), kBase, "test");
    EXPECT_EQ(spec.options.index(), i) << job_kinds()[i];
    EXPECT_EQ(spec.kind, job_kinds()[i]);
  }
}

TEST(JobSpec, ResolvedSpecParsesToItself) {
  for (const std::string& kind : job_kinds()) {
    const json resolved = to_json(parse_job_spec(minimal(kind), kBase, "test"));
    EXPECT_EQ(to_json(parse_job_spec(resolved, "/elsewhere", "test")), resolved) << kind;
  }
  // Not only the defaults.
  const json changed = to_json(parse_job_spec(
      with("distill",
           {"seed=9223372036854775807", "ranks=2", "micro_batches=4", "dmd.sigma_lo=0.25",
            "warmup.optimizer.schedule=cosine", "evaluation.detector=@d",
            "evaluation.dataset.path=x.h5", "max_pairs=7", "output=out"}),
      kBase, "test"));
  EXPECT_EQ(to_json(parse_job_spec(changed, "/elsewhere", "test")), changed);
  EXPECT_EQ(changed["seed"], 9223372036854775807);
  EXPECT_EQ(changed["output"], "/project/configs/digits/out");
}

TEST(JobSpec, DefaultsAreTheRecipe) {
  const auto detector = options_of<TrainDetectorSpec>("train_detector");
  EXPECT_EQ(detector.iterations, 1000);
  EXPECT_EQ(detector.optimizer.learning_rate, 1e-3);
  EXPECT_EQ(detector.optimizer.beta2, 0.999);
  EXPECT_EQ(detector.optimizer.weight_decay, 1e-4);
  EXPECT_EQ(detector.optimizer.schedule, "cosine");
  const auto teacher = options_of<TrainTeacherSpec>("train_teacher");
  EXPECT_EQ(teacher.images, 450000);
  EXPECT_EQ(teacher.P_mean, 0.0);
  EXPECT_EQ(teacher.P_std, 1.2);
  EXPECT_EQ(teacher.optimizer.learning_rate, 2e-3);
  EXPECT_EQ(teacher.optimizer.rampup_iterations, 100);
  EXPECT_EQ(teacher.optimizer.schedule, "cosine");
  EXPECT_EQ(teacher.optimizer.beta2, 0.99);
  const auto distill = options_of<DistillSpec>("distill");
  EXPECT_EQ(distill.warmup.optimizer.learning_rate, 1e-3);
  EXPECT_EQ(distill.warmup.optimizer.rampup_iterations, 20);
  EXPECT_EQ(distill.warmup.optimizer.schedule, "constant");
  EXPECT_EQ(distill.warmup.optimizer.beta1, 0.9);
  EXPECT_EQ(distill.dmd.generator.learning_rate, 1e-4);
  EXPECT_EQ(distill.dmd.fake.learning_rate, 1e-3);
  for (const OptimizerSpec& optimizer : {distill.dmd.generator, distill.dmd.fake}) {
    EXPECT_EQ(optimizer.beta1, 0.0);
    EXPECT_EQ(optimizer.clip_norm, 1.0);
    EXPECT_EQ(optimizer.schedule, "constant");
  }
}

TEST(JobSpec, EvaluationByInceptionHasItsOwnFields) {
  json document = {{"name", "e"},          {"kind", "evaluate"},         {"source", "images"},
                   {"images", "pictures"}, {"reference", "cifar10.npz"}, {"detector", "inception.safetensors"}};
  const auto spec = std::get<EvaluateSpec>(parse_job_spec(document, kBase, "test").options);
  EXPECT_EQ(spec.images, kBase + "/pictures");
  EXPECT_EQ(spec.reference, kBase + "/cifar10.npz");
  EXPECT_EQ(spec.resize, "tf1");
  EXPECT_THAT(spec.metrics, ElementsAre("fid"));
  const auto problems_with = [&](const json& changes) {
    json changed = document;
    changed.update(changes);
    return problems(changed);
  };
  EXPECT_THAT(problems_with({{"reference", ""}, {"metrics", {"is"}}}), IsEmpty());
  EXPECT_THAT(problems_with({{"metrics", {"fid", "kid", "is", "precision_recall"}}, {"resize", "clean_fid"}}), IsEmpty());
  EXPECT_THAT(problems_with({{"reference", ""}}), ElementsAre(HasSubstr("/reference: expected a dataset or a reference")));
  EXPECT_THAT(problems_with({{"dataset", {{"path", "x.h5"}}}}), ElementsAre(HasSubstr("/reference: expected either")));
  EXPECT_THAT(problems_with({{"metrics", {"fid", "lpips"}}}), ElementsAre(HasSubstr("found \"lpips\"")));
  EXPECT_THAT(problems_with({{"metrics", json::array()}}), ElementsAre(HasSubstr("found none")));
  EXPECT_THAT(problems_with({{"resize", "nearest"}}), ElementsAre(HasSubstr("/resize: ")));
  EXPECT_THAT(problems_with({{"images", ""}}), ElementsAre(HasSubstr("/images: expected a folder")));
  EXPECT_THAT(problems_with({{"source", "model"}, {"model", "m"}}), ElementsAre(HasSubstr("/images: expected no folder")));
  // The small detector knows a dataset and its distance.
  EXPECT_THAT(problems_with({{"detector", "@detector"}}),
              UnorderedElementsAre(HasSubstr("/dataset/path: "), HasSubstr("/source: "), HasSubstr("/reference: ")));
  EXPECT_THAT(problems(with("evaluate", {"metrics=[\"kid\"]", "lanczos=256"})),
              UnorderedElementsAre(HasSubstr("/metrics: "), HasSubstr("/lanczos: ")));
}

TEST(JobSpec, LpipsNeedsItsWeights) {
  EXPECT_THAT(problems(with("distill", {"distance=lpips"})), ElementsAre(HasSubstr("/lpips/weights: expected safetensors")));
  EXPECT_THAT(problems(with("distill", {"lpips.weights=[\"vgg.safetensors\"]"})), ElementsAre(HasSubstr("/lpips/weights: expected none")));
  const json document = with("distill", {"distance=lpips", "lpips.weights=[\"vgg.safetensors\"]", "lpips.resize=0"});
  const auto spec = std::get<DistillSpec>(parse_job_spec(document, kBase, "test").options);
  EXPECT_THAT(spec.lpips.weights, ElementsAre(kBase + "/vgg.safetensors"));
  EXPECT_EQ(spec.lpips.pooling, "max");
}

TEST(JobSpec, RequiredFieldsAreNamed) {
  const auto missing = [](const std::string& kind) {
    return problems({{"name", "job"}, {"kind", kind}});
  };
  const std::string nothing = ": expected a string that is not empty, found nothing (required)";
  EXPECT_THAT(missing("train_teacher"), ElementsAre("/dataset/path" + nothing));
  EXPECT_THAT(missing("train_detector"), ElementsAre("/dataset/path" + nothing));
  EXPECT_THAT(missing("generate_pairs"), ElementsAre("/teacher" + nothing));
  EXPECT_THAT(missing("distill"), ElementsAre("/teacher" + nothing, HasSubstr("/pairs: expected a path or \"@job\", found nothing (required unless")));
  EXPECT_THAT(missing("evaluate"),
              UnorderedElementsAre("/dataset/path" + nothing, "/detector" + nothing,
                                   HasSubstr("/model: expected a path")));
  EXPECT_THAT(missing("export"), ElementsAre("/model" + nothing));
  EXPECT_THAT(missing("sample"), ElementsAre("/model" + nothing, "/out" + nothing));
  EXPECT_THAT(problems(json::object()), ElementsAre("/name" + nothing, "/kind" + nothing));
  EXPECT_THAT(problems(json::array()), ElementsAre(": expected an object, found []"));
  EXPECT_THAT(problems({{"name", "job"}, {"kind", "distil"}}),
              ElementsAre(testing::AllOf(HasSubstr("/kind: expected one of train_detector"),
                                         HasSubstr("did you mean 'distill'?"))));
}

TEST(JobSpec, AllProblemsAreReportedAtOnce) {
  const json document =
      with("distill", {"dmd.bacth=64", "ranks=0", "warmup.pairs=ten", "dmd.sigma_lo=6",
                       "numerics=fast", "checkpoint.keep_last=0", "tacher=x"});
  EXPECT_THAT(
      problems(document),
      UnorderedElementsAre("/dmd/bacth: unknown key; did you mean 'batch'?",
                           "/ranks: expected an integer from 1 to 65536, found 0",
                           "/warmup/pairs: expected an integer from 1 to 1048576, found \"ten\"",
                           "/dmd/sigma_lo: expected less than sigma_hi (5.0), found 6.0",
                           "/numerics: expected one of native, portable, found \"fast\"",
                           "/checkpoint/keep_last: expected an integer from 1 to 1000000, found 0",
                           "/tacher: unknown key; did you mean 'teacher'?"));
  try {
    parse_job_spec(document, kBase, "job.json");
    ADD_FAILURE() << "accepted";
  } catch (const ConfigError& error) {
    EXPECT_EQ(error.violations().size(), 7u);
    EXPECT_THAT(error.what(), HasSubstr("job.json: 7 problems"));
  }
}

TEST(JobSpec, RanksMustShareTheMicroBatches) {
  EXPECT_THAT(
      problems(with("distill", {"ranks=3", "micro_batches=4"})),
      ElementsAre("/ranks: ranks 3 can't share 4 micro-batches: expected one of 1, 2, 4, found 3"));
  EXPECT_THAT(problems(with("train_teacher", {"ranks=8", "micro_batches=4"})),
              ElementsAre(HasSubstr("ranks 8 can't share 4 micro-batches")));
  EXPECT_THAT(problems(with("distill", {"ranks=4", "micro_batches=4"})), IsEmpty());
  EXPECT_THAT(problems(with("distill", {"ranks=3", "micro_batches=4", "reduction=fast"})),
              IsEmpty());
  EXPECT_THAT(problems(with("generate_pairs", {"ranks=3"})), IsEmpty());
  EXPECT_THAT(problems(with("export", {"ranks=2"})),
              ElementsAre("/ranks: expected 1 for kind export, found 2"));
  EXPECT_THAT(problems(with("distill", {"micro_batches=3"})),
              ElementsAre("/micro_batches: expected a power of two from 1 to 1024, found 3"));
  EXPECT_THAT(problems(with("distill", {"micro_batches=2048"})),
              ElementsAre("/micro_batches: expected an integer from 1 to 1024, found 2048"));
}

TEST(JobSpec, BatchesMustBeMultiplesOfTheMicroBatches) {
  EXPECT_THAT(problems(with("distill", {"micro_batches=128"})),
              ElementsAre("/warmup/pairs: expected a multiple of micro_batches (128), found 192",
                          "/dmd/pairs: expected a multiple of micro_batches (128), found 64"));
  EXPECT_THAT(problems(with("train_teacher", {"micro_batches=4", "batch=6"})),
              ElementsAre("/batch: expected a multiple of micro_batches (4), found 6"));
  EXPECT_THAT(problems(with("train_detector", {"micro_batches=4", "batch=6"})),
              ElementsAre("/batch: expected a multiple of micro_batches (4), found 6"));
}

TEST(JobSpec, TextToImageHasItsOwnFieldsAndOthersKeepTheirWords) {
  const std::vector<std::string> text = {"prompts=@encode", "dmd.guidance_scale=8", "dmd.t_hi=0.5", "distance=lpips",
                                         "lpips.weights=[\"vgg.safetensors\"]", "decoder=taesd"};
  EXPECT_THAT(problems(with("distill", text)), IsEmpty());
  const json resolved = to_json(parse_job_spec(with("distill", text), kBase, "test"));
  EXPECT_EQ(to_json(parse_job_spec(resolved, "/elsewhere", "test")), resolved);
  EXPECT_EQ(resolved["decoder"], kBase + "/taesd");
  // What was written before these fields existed keeps its digest.
  for (const char* kind : {"generate_pairs", "distill", "evaluate", "export", "sample"}) {
    const json plain = to_json(parse_job_spec(minimal(kind), kBase, "test"));
    for (const char* key : {"like", "prompts", "decoder", "format", "dtype", "evaluation"}) {
      const bool is_older = std::string(kind) == "distill" && std::string(key) == "evaluation";
      EXPECT_EQ(plain.contains(key), is_older) << kind << " " << key;
    }
    EXPECT_FALSE(plain.contains(json::json_pointer("/dmd/t_lo")) || plain.contains(json::json_pointer("/dmd/guidance_scale")));
  }
}

TEST(JobSpec, TextAndSigmaExcludeEachOther) {
  EXPECT_THAT(problems(with("distill", {"dmd.guidance_scale=3", "dmd.t_lo=0.1", "decoder=vae"})),
              ElementsAre("/dmd/t_lo: expected 0.02 without prompts, found 0.1",
                          "/dmd/guidance_scale: expected 1.0 without prompts, found 3.0",
                          HasSubstr("/decoder: expected none but for distance lpips with prompts")));
  EXPECT_THAT(problems(with("distill", {"prompts=p", "generator_sigma=40", "dmd.sigma_hi=7",
                                        "evaluation.detector=@d", "evaluation.dataset.path=x.h5"})),
              ElementsAre("/generator_sigma: expected 80.0 with prompts, found 40.0",
                          "/dmd/sigma_hi: expected 5.0 with prompts, found 7.0"));
  EXPECT_THAT(problems(with("distill", {"prompts=p", "distance=lpips", "lpips.weights=[\"vgg.safetensors\"]"})),
              ElementsAre(HasSubstr("/decoder: expected an autoencoder's folder")));
  EXPECT_THAT(problems(with("distill", {"prompts=p", "dmd.t_lo=0.5", "dmd.t_hi=0.5"})),
              ElementsAre("/dmd/t_lo: expected less than t_hi (0.5), found 0.5"));
}

TEST(JobSpec, ASingleFileNeedsAFolderLikeIt) {
  EXPECT_THAT(problems(with("generate_pairs", {"teacher=sd.safetensors"})),
              ElementsAre(HasSubstr("/like: expected a pipeline folder"), HasSubstr("/prompts: expected an encode_prompts folder")));
  EXPECT_THAT(problems(with("generate_pairs", {"teacher=sd.safetensors", "like=sd15", "prompts=@encode"})), IsEmpty());
  EXPECT_THAT(problems(with("sample", {"like=sd15"})), ElementsAre(HasSubstr("/like: expected none")));
  EXPECT_THAT(problems(with("encode_prompts", {"prompts=@other", "ranks=2"})),
              ElementsAre("/ranks: expected 1 for kind encode_prompts, found 2",
                          "/prompts: expected a file, found a reference to a job"));
  EXPECT_THAT(problems(with("evaluate", {"prompts=p"})), IsEmpty());
  EXPECT_THAT(problems(with("export", {"format=zip", "dtype=fp64"})), ::testing::SizeIs(2));
}

TEST(JobSpec, ATextTeacherIsMadeOfOtherJobs) {
  const auto teacher = options_of<TrainTextTeacherSpec>("train_text_teacher");
  EXPECT_EQ(teacher.base, kBase + "/sd15");
  EXPECT_EQ(teacher.text_dropout, 0.1);
  EXPECT_EQ(options_of<TrainAutoencoderSpec>("train_autoencoder").loss, "l1");
  EXPECT_THAT(problems(with("train_text_teacher", {"micro_batches=3"})), ElementsAre(HasSubstr("/micro_batches: ")));
  EXPECT_THAT(problems(with("train_text_teacher", {"micro_batches=4", "batch=6", "base=@x", "text_dropout=2"})),
              UnorderedElementsAre("/batch: expected a multiple of micro_batches (4), found 6",
                                   HasSubstr("/base: expected a pipeline folder"), HasSubstr("/text_dropout: ")));
  EXPECT_THAT(problems(with("train_autoencoder", {"loss=lpips", "config=@x"})),
              UnorderedElementsAre(HasSubstr("/loss: "), HasSubstr("/config: expected a folder")));
  EXPECT_THAT(problems(with("encode", {"ranks=2"})), ElementsAre("/ranks: expected 1 for kind encode, found 2"));
  const auto kinds_of = [](const std::string& kind, const std::string& pointer) {
    for (const ReferenceUse& use : reference_uses(parse_job_spec(minimal(kind), kBase, "test"))) {
      if (use.pointer == pointer) return use.kinds;
    }
    return std::vector<std::string>{};
  };
  EXPECT_THAT(kinds_of("train_text_teacher", "/latents"), ElementsAre("encode"));
  EXPECT_THAT(kinds_of("encode", "/autoencoder"), ElementsAre("train_autoencoder"));
}

TEST(JobSpec, AScheduleIsReadWrittenAndWalked) {
  json document = with("distill", {"prompts=p", "distance=lpips", "lpips.weights=[\"vgg.safetensors\"]", "decoder=taesd"});
  EXPECT_FALSE(to_json(parse_job_spec(document, kBase, "test")).at("dmd").contains("schedule"));
  document["dmd"]["schedule"] = {{{"from_iteration", 10}, {"lambda_reg", 0.5}},
                                 {{"from_iteration", 20}, {"lambda_reg", 1.0}, {"t_hi", 0.5}, {"decoder", "@vae"}}};
  const JobSpec spec = parse_job_spec(document, kBase, "test");
  const auto schedule = std::get<DistillSpec>(spec.options).dmd.schedule;
  ASSERT_EQ(schedule.size(), 2u);
  EXPECT_EQ(schedule[0].t_hi, 0.98);
  EXPECT_EQ(schedule[1].t_hi, 0.5);
  EXPECT_EQ(parse_job_spec(to_json(spec), kBase, "test").options.index(), spec.options.index());
  EXPECT_EQ(to_json(parse_job_spec(to_json(spec), kBase, "test")), to_json(spec));
  EXPECT_THAT(references(spec), ElementsAre("teacher", "vae"));
  const JobSpec placed = substitute_references(spec, [](const std::string& name) { return "/jobs/" + name; });
  EXPECT_EQ(std::get<DistillSpec>(placed.options).dmd.schedule[1].decoder, "/jobs/vae");

  const auto problems_with = [&](const json& schedule_json) {
    json changed = document;
    changed["dmd"]["schedule"] = schedule_json;
    return problems(changed);
  };
  EXPECT_THAT(problems_with({{{"from_iteration", 20}}, {{"from_iteration", 20}}}),
              ElementsAre("/dmd/schedule/1/from_iteration: expected more than the stage before it (20), found 20"));
  EXPECT_THAT(problems_with({{{"from_iteration", 300}}}), ElementsAre(HasSubstr("/from_iteration: expected less than dmd.iterations (300)")));
  EXPECT_THAT(problems_with({{{"t_hi", 0.01}}}), ElementsAre("/dmd/schedule/0/t_hi: expected more than t_lo (0.02), found 0.01"));
  EXPECT_THAT(problems_with({{{"lambda", 1}}}), ElementsAre(HasSubstr("/dmd/schedule/0/lambda: unknown key")));
  EXPECT_THAT(problems_with({{"lambda_reg", 1}}), ElementsAre(HasSubstr("/dmd/schedule: expected a list of objects")));
  EXPECT_THAT(problems(with("distill", {"dmd.schedule=[{\"t_hi\": 0.5, \"decoder\": \"d\"}]"})),
              ElementsAre(HasSubstr("/dmd/schedule/0/t_hi: expected none without prompts"),
                          HasSubstr("/dmd/schedule/0/decoder: expected none where the spec has none")));
}

TEST(JobSpec, DistillRefusesSettingsThatMeanNothing) {
  EXPECT_THAT(problems(with("distill", {"dmd.pairs=0"})),
              ElementsAre("/dmd/lambda_reg: expected 0 when dmd.pairs is 0, found 0.1"));
  EXPECT_THAT(problems(with("distill", {"dmd.pairs=0", "dmd.lambda_reg=0"})), IsEmpty());
  EXPECT_THAT(problems(with("distill", {"dmd.lambda_dm=0", "dmd.lambda_reg=0"})),
              ElementsAre(HasSubstr("/dmd/lambda_dm: expected more than 0")));
  EXPECT_THAT(problems(with("distill", {"dmd.iterations=0", "warmup.iterations=0"})),
              ElementsAre(HasSubstr("/dmd/iterations: expected at least one iteration")));
  EXPECT_THAT(problems(with("distill", {"evaluation.detector=@d"})),
              ElementsAre(HasSubstr("/evaluation/dataset/path: expected both")));
  EXPECT_THAT(problems(with("distill", {"evaluation.dataset.path=x.h5"})),
              ElementsAre(HasSubstr("/evaluation/detector: expected both")));
}

TEST(JobSpec, WithoutPairsNothingRegresses) {
  const auto without = [](std::vector<std::string> changes) {
    json document = minimal("distill");
    document.erase("pairs");
    changes.insert(changes.begin(), {"warmup.iterations=0", "dmd.pairs=0", "dmd.lambda_reg=0"});
    for (const std::string& change : changes) apply_override(document, change);
    return document;
  };
  EXPECT_THAT(problems(without({})), IsEmpty());
  EXPECT_FALSE(to_json(parse_job_spec(without({}), kBase, "test")).contains("pairs"));
  const char* needed = "/pairs: expected a path or \"@job\", found nothing (required unless warmup.iterations, dmd.pairs and dmd.lambda_reg are 0)";
  EXPECT_THAT(problems(without({"warmup.iterations=1"})), ElementsAre(needed));
  EXPECT_THAT(problems(without({"dmd.pairs=64"})), ElementsAre(needed));
  EXPECT_THAT(problems(without({"dmd.lambda_reg=0.1"})), ElementsAre("/dmd/lambda_reg: expected 0 when dmd.pairs is 0, found 0.1"));
  EXPECT_THAT(problems(without({"dmd.regression_joins_dm=true"})), ElementsAre("/dmd/regression_joins_dm: expected false when dmd.pairs is 0, found true"));
  EXPECT_THAT(problems(without({"max_pairs=5"})), ElementsAre("/max_pairs: expected 0 without pairs, found 5"));
  EXPECT_THAT(problems(without({"distance=lpips", "lpips.weights=[\"vgg.safetensors\"]"})),
              ElementsAre("/distance: expected l2 without pairs, found lpips"));
  EXPECT_THAT(problems(without({"pairs=p"})), ElementsAre(HasSubstr("/pairs: expected none when warmup.iterations and dmd.pairs are 0, found")));
}

TEST(JobSpec, OptionsOfDmd2AreCheckedAndWrittenOnlyWhenTheyAreSaid) {
  const json usual = to_json(parse_job_spec(minimal("distill"), kBase, "test"));
  EXPECT_FALSE(usual.contains("student_timesteps"));
  for (const char* key : {"gan", "regression_joins_dm", "fake_updates_per_generator_update"}) EXPECT_FALSE(usual["dmd"].contains(key)) << key;
  const std::vector<std::string> all = {"student_timesteps=[80,2.5]", "dmd.gan.dataset.path=d.h5", "dmd.gan.lambda_generator=0.001",
                                        "dmd.regression_joins_dm=true", "dmd.fake_updates_per_generator_update=5"};
  const json said = to_json(parse_job_spec(with("distill", all), kBase, "test"));
  EXPECT_EQ(to_json(parse_job_spec(said, "/elsewhere", "test")), said);
  EXPECT_EQ(said["dmd"]["gan"]["dataset"]["path"], kBase + "/d.h5");
  EXPECT_EQ(said["student_timesteps"], (json{80.0, 2.5}));
  EXPECT_THAT(problems(with("distill", {"dmd.gan.lambda_generator=0.001"})),
              ElementsAre("/dmd/gan/dataset/path: expected a file of real images for the discriminator, found nothing (required)"));
  EXPECT_THAT(problems(with("distill", {"dmd.gan.dataset.path=d.h5", "dmd.gan.sigma_lo=80"})),
              ElementsAre("/dmd/gan/sigma_lo: expected less than sigma_hi (80.0), found 80.0"));
  EXPECT_THAT(problems(with("distill", {"dmd.gan.dataset.path=d.h5", "prompts=@encode"})),
              ElementsAre(HasSubstr("/dmd/gan/latents: expected a path or \"@job\""), HasSubstr("/dmd/gan/dataset: expected none with prompts")));
  EXPECT_THAT(problems(with("distill", {"dmd.gan.latents=@encode"})),
              ElementsAre(HasSubstr("/dmd/gan/dataset/path: expected a file"), HasSubstr("/dmd/gan/latents: expected none without prompts")));
  EXPECT_THAT(problems(with("distill", {"dmd.gan.latents=@latents", "prompts=@encode"})), IsEmpty());
  EXPECT_THAT(problems(with("distill", {"dmd.gan.latents=@latents", "prompts=@encode", "dmd.gan.sigma_lo=1", "dmd.gan.t_lo=1"})),
              ElementsAre("/dmd/gan/sigma_lo: expected 0.002 with prompts, found 1.0", "/dmd/gan/t_lo: expected less than t_hi (1.0), found 1.0"));
  EXPECT_THAT(problems(with("distill", {"dmd.gan.dataset.path=d.h5", "dmd.gan.t_hi=0.5"})),
              ElementsAre("/dmd/gan/t_hi: expected 1.0 without prompts, found 0.5"));
  EXPECT_THAT(problems(with("distill", {"dmd.fake_updates_per_generator_update=0"})),
              ElementsAre("/dmd/fake_updates_per_generator_update: expected an integer from 1 to 1000, found 0"));
  EXPECT_THAT(problems(with("distill", {"dmd.lambda_dm=0", "dmd.lambda_reg=0", "dmd.gan.dataset.path=d.h5"})), IsEmpty());
  EXPECT_THAT(problems(with("distill", {"student_timesteps=[80,80]"})), ElementsAre("/student_timesteps: expected numbers that descend, found [80.0,80.0]"));
  EXPECT_THAT(problems(with("distill", {"student_timesteps=[40,2]"})), ElementsAre("/student_timesteps: expected generator_sigma (80.0) first, found 40.0"));
  EXPECT_THAT(problems(with("distill", {"student_timesteps=[40,2]", "generator_sigma=40"})), IsEmpty());
  EXPECT_THAT(problems(with("distill", {"student_timesteps=[80,0]"})), ElementsAre("/student_timesteps: expected sigmas above 0, found 0.0"));
  EXPECT_THAT(problems(with("distill", {"student_timesteps=[999,499,0]", "prompts=@encode"})), IsEmpty());
  EXPECT_THAT(problems(with("distill", {"student_timesteps=[999,249.5]", "prompts=@encode"})), ElementsAre(HasSubstr("/student_timesteps: expected whole steps")));
}

TEST(JobSpec, EvaluateNeedsAModelExactlyWhenItsSourceIsOne) {
  EXPECT_THAT(
      problems(with("evaluate", {"source=real_split_half"})),
      ElementsAre("/model: expected no model for source real_split_half, found \"@distill\""));
  EXPECT_THAT(problems(with("evaluate", {"source=real_split_half", "model=\"\""})), IsEmpty());
  EXPECT_THAT(problems(with("evaluate", {"model=\"\""})),
              ElementsAre(HasSubstr("/model: expected a path")));
}

TEST(JobSpec, SamplerAndNamesAndDeviceAreChecked) {
  EXPECT_THAT(problems(with("generate_pairs", {"sampler.sigma_min=80"})),
              ElementsAre("/sampler/sigma_min: expected less than sigma_max (80.0), found 80.0"));
  EXPECT_THAT(
      problems(with("export", {"device=cuda"})),
      ElementsAre("/device: expected cpu: export computes on the CPU only; found cuda"));
  EXPECT_THAT(problems(with("export", {"device=tpu"})),
              ElementsAre(HasSubstr("/device: expected one of cpu, cuda")));
  for (const char* bad : {"9lives", "a/b", "../x", "a b", "-a"}) {
    EXPECT_THAT(problems(with("export", {std::string("name=\"") + bad + "\""})),
                ElementsAre(HasSubstr("/name: expected a letter")));
  }
  EXPECT_THAT(problems(with("export", {"name=" + std::string(65, 'a')})),
              ElementsAre(HasSubstr("/name: ")));
  EXPECT_THAT(problems(with("export", {"name=" + std::string(64, 'a')})), IsEmpty());
}

TEST(JobSpec, PathsResolveAgainstTheBaseAndReferencesStay) {
  const JobSpec spec = parse_job_spec(minimal("distill"), kBase, "test");
  const auto& distill = std::get<DistillSpec>(spec.options);
  EXPECT_EQ(distill.teacher, "@teacher");
  EXPECT_EQ(distill.pairs, "/project/configs/digits/runs/pairs");
  EXPECT_EQ(options_of<TrainTeacherSpec>("train_teacher").dataset.path,
            "/project/build/data/digits.h5");
  EXPECT_THAT(problems(with("export", {"model=@../x"})),
              ElementsAre("/model: expected a job's name after '@', found \"@../x\""));
  EXPECT_THAT(problems(with("export", {"output=@x"})),
              ElementsAre(HasSubstr("/output: expected a folder")));
}

TEST(JobSpec, ReferencesAreListedAndSubstituted) {
  const JobSpec spec = parse_job_spec(
      with("evaluate", {"compare=[\"@a\", \"@distill\", \"/abs\"]", "dataset.path=@data"}), kBase,
      "test");
  EXPECT_THAT(references(spec), ElementsAre("distill", "data", "detector", "a"));
  const JobSpec resolved =
      substitute_references(spec, [](const std::string& name) { return "/runs/" + name; });
  const auto& evaluate = std::get<EvaluateSpec>(resolved.options);
  EXPECT_EQ(evaluate.model, "/runs/distill");
  EXPECT_EQ(evaluate.dataset.path, "/runs/data");
  EXPECT_THAT(evaluate.compare, ElementsAre("/runs/a", "/runs/distill", "/abs"));
  EXPECT_THAT(references(resolved), IsEmpty());
}

TEST(JobSpec, BitRelevantConfigDropsWhatCannotChangeBits) {
  const JobSpec spec = parse_job_spec(minimal("distill"), kBase, "test");
  const JobSpec other =
      parse_job_spec(with("distill", {"name=x", "ranks=1", "output=/o", "report_every=3",
                                      "checkpoint.every_iterations=7", "health.on_alarm=stop",
                                      "checkpoint.best.metric=kid", "evaluation.detector=@d",
                                      "evaluation.dataset.path=x.h5"}),
                     kBase, "test");
  EXPECT_EQ(bit_relevant_config(spec), bit_relevant_config(other));
  for (const char* change : {"seed=1", "micro_batches=2", "reduction=fast", "numerics=portable",
                             "dmd.batch=64", "warmup.optimizer.beta2=0.9", "teacher=/t"}) {
    const JobSpec changed = parse_job_spec(with("distill", {change}), kBase, "test");
    EXPECT_NE(bit_relevant_config(spec), bit_relevant_config(changed)) << change;
  }
}

TEST(JobSpec, WhatCameLaterIsWrittenOnlyWhenItIsSaid) {
  const json usual = to_json(parse_job_spec(minimal("distill"), kBase, "test"));
  EXPECT_FALSE(usual.contains("health"));
  EXPECT_FALSE(usual["checkpoint"].contains("best"));
  EXPECT_FALSE(to_json(parse_job_spec(minimal("export"), kBase, "test")).contains("selection"));
  const JobSpec said = parse_job_spec(with("distill", {"health.fake_loss=3", "checkpoint.best.direction=highest"}), kBase, "test");
  EXPECT_EQ(said.health.fake_loss, 3);
  const json written = to_json(said);
  EXPECT_EQ(written["health"]["on_alarm"], "continue");
  EXPECT_EQ(written["checkpoint"]["best"]["metric"], "frechet");
  EXPECT_EQ(to_json(parse_job_spec(written, kBase, "test")), written);
}

TEST(JobSpec, HealthAndSelectionAreChecked) {
  const auto problems = [](const char* kind, const std::vector<std::string>& changes) {
    try {
      parse_job_spec(with(kind, changes), kBase, "test");
    } catch (const ConfigError& error) {
      return std::string(error.what());
    }
    return std::string("none");
  };
  EXPECT_THAT(problems("distill", {"health.on_alarm=panic"}), HasSubstr("/health/on_alarm: expected one of continue, checkpoint, stop"));
  EXPECT_THAT(problems("distill", {"health.sustained=2"}), HasSubstr("/health/sustained"));
  EXPECT_THAT(problems("distill", {"health.colour=2"}), HasSubstr("/health/colour"));
  EXPECT_THAT(problems("distill", {"checkpoint.best.metric="}), HasSubstr("/checkpoint/best/metric"));
  EXPECT_THAT(problems("export", {"selection=newest"}), HasSubstr("/selection: expected one of auto, best, last"));
}

TEST(JobSpec, DifferingKeysNameEachLeaf) {
  const json expected = {{"a", {{"b", 1}, {"c", 2}}}, {"d", {1, 2}}, {"gone", true}};
  const json found = {{"a", {{"b", 1}, {"c", 3}}}, {"d", {1, 3}}, {"new", "x"}};
  EXPECT_THAT(
      differing_keys(expected, found),
      ElementsAre("/a/c: expected 2, found 3", "/d: expected [1,2], found [1,3]",
                  "/gone: expected true, found nothing", "/new: expected nothing, found \"x\""));
  EXPECT_THAT(differing_keys(expected, expected), IsEmpty());
}

// What is wrong with the digits network once `change` is made.
std::string network_problem(const json& change) {
  json document = to_json(NetworkSpec{});
  document.update(change);
  try {
    network_spec_from_json(document, "config.json");
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), HasSubstr("config.json"));
    EXPECT_EQ(error.violations().size(), 1u) << error.what();
    return error.violations().front().pointer + ": " + error.violations().front().message;
  }
  return "";
}

TEST(NetworkSpec, GoesThereAndBack) {
  const json digits = to_json(NetworkSpec{});
  EXPECT_EQ(to_json(network_spec_from_json(digits, "test")), digits);
  // The published ImageNet-64 shape is legal.
  EXPECT_EQ(network_problem({{"image_size", 64},
                             {"image_channels", 3},
                             {"pixel_unshuffle", 1},
                             {"model_channels", 192},
                             {"channel_mult", {1, 2, 3, 4}},
                             {"channel_mult_emb", 4},
                             {"num_blocks", 3},
                             {"attention_resolutions", {32, 16, 8}},
                             {"channels_per_head", 64},
                             {"label_dim", 1000},
                             {"noise_frequencies", "published"}}),
            "");
}

TEST(NetworkSpec, ShapesThatCannotBeBuiltAreRefused) {
  EXPECT_EQ(network_problem({{"image_size", 15}}),
            "/image_size: expected a multiple of pixel_unshuffle * 2^(levels - 1) = 2, found 15");
  EXPECT_EQ(network_problem({{"channel_mult", {1, 1}}}),
            "/image_size: expected a multiple of pixel_unshuffle * 2^(levels - 1) = 4, found 14");
  EXPECT_EQ(network_problem({{"channel_mult", json::array()}}),
            "/channel_mult: expected at least one level, found none");
  EXPECT_EQ(network_problem({{"model_channels", 30}}),
            "/model_channels: expected a multiple of 4, found 30");
  // 132 channels in 32 groups.
  EXPECT_THAT(network_problem({{"model_channels", 132}}), HasSubstr("found a width of 132"));
  // 100 + 100 channels meet in the decoder: 200 in 32 groups.
  EXPECT_THAT(network_problem({{"model_channels", 100}}), HasSubstr("found a width of 200"));
  EXPECT_EQ(network_problem({{"channels_per_head", 24}}),
            "/channels_per_head: expected a divisor of the 32 channels at 7x7, found 24");
  EXPECT_EQ(network_problem({{"attention_resolutions", {7, 14}}}),
            "/attention_resolutions: expected some of the network's resolutions 7, found 14");
  EXPECT_EQ(network_problem({{"sigma_data", 0}}),
            "/sigma_data: expected a finite number from 1e-12 to 1e+12, found 0");
  EXPECT_EQ(network_problem({{"colour", 1}}).substr(0, 21), "/colour: unknown key;");
}

// What files say about networks and samplers must not change with the options that came later: digests depend on it.
TEST(NetworkSpec, DigitsJsonIsTheOneOfFormatVersionOne) {
  EXPECT_EQ(to_json(NetworkSpec{}),
            (json{{"class", "adm_unet"},
                  {"preconditioner", "edm"},
                  {"image_size", 14},
                  {"image_channels", 1},
                  {"pixel_unshuffle", 2},
                  {"model_channels", 32},
                  {"channel_mult", {1}},
                  {"channel_mult_emb", 2},
                  {"num_blocks", 2},
                  {"attention_resolutions", json::array()},
                  {"channels_per_head", 32},
                  {"label_dim", 10},
                  {"noise_frequencies", "geometric"},
                  {"sigma_data", 0.5}}));
  EXPECT_EQ(to_json(SamplerSpec{}),
            (json{{"kind", "heun"}, {"steps", 18}, {"sigma_min", 0.002}, {"sigma_max", 80.0}, {"rho", 7.0}}));
}

TEST(NetworkSpec, SongUnetHasItsOwnOptions) {
  const json song = {{"class", "song_unet"},     {"image_size", 32},          {"pixel_unshuffle", 1},
                     {"preconditioner", "ve"},   {"embedding_type", "fourier"}, {"channel_mult_noise", 2},
                     {"encoder_type", "residual"}, {"resample_filter", {1, 3, 3, 1}}, {"augment_dim", 9},
                     {"channel_mult", {2, 2, 2}}, {"attention_resolutions", {16}}, {"dropout", 0.13}};
  const NetworkSpec network = network_spec_from_json(song, "test");
  EXPECT_EQ(network.augment_dim, 9);
  const json written = to_json(network);
  EXPECT_EQ(to_json(network_spec_from_json(written, "test")), written);
  EXPECT_EQ(written.at("dropout"), 0.13);
  const auto problem = [&](const json& change) -> std::string {
    json document = song;
    document.update(change);
    try {
      network_spec_from_json(document, "test");
    } catch (const ConfigError& error) {
      return error.violations().front().pointer + ": " + error.violations().front().message;
    }
    return "";
  };
  EXPECT_EQ(problem({{"pixel_unshuffle", 2}}), "/pixel_unshuffle: expected 1 for song_unet, found 2");
  EXPECT_EQ(problem({{"resample_filter", {1, 2, 1}}}), "/resample_filter: expected [1,1] or [1,3,3,1], found [1,2,1]");
  EXPECT_THAT(problem({{"encoder_type", "skip"}}), HasSubstr("/encoder_type: expected one of standard, residual, found"));
  EXPECT_THAT(problem({{"preconditioner", "edm2"}}), HasSubstr("/preconditioner: expected one of edm, vp, ve, iddpm, found"));
  // Options of the other class are unknown, not ignored.
  EXPECT_EQ(problem({{"channels_per_head", 64}}).substr(0, 31), "/channels_per_head: unknown key");
  EXPECT_EQ(network_problem({{"augment_dim", 9}}).substr(0, 25), "/augment_dim: unknown key");
}

TEST(JobSpec, SamplersAreThoseOfTheBuild) {
  for (const char* kind : {"heun", "euler", "ddim", "pndm", "one_step"}) {
    EXPECT_THAT(problems(with("generate_pairs", {std::string("sampler.kind=") + kind})), IsEmpty());
    EXPECT_THAT(problems(with("generate_pairs", {std::string("sampler.kind=") + kind, "sampler.timesteps=[80,1]"})),
                ElementsAre(std::string("/sampler/timesteps: expected none for ") + kind + ", found [80.0,1.0]"));
  }
  EXPECT_THAT(problems(with("generate_pairs", {"sampler.kind=few_step", "sampler.timesteps=[80,1]"})), IsEmpty());
  EXPECT_THAT(problems(with("generate_pairs", {"sampler.kind=few_step"})),
              ElementsAre("/sampler/timesteps: expected the student's timesteps for few_step, found none"));
  EXPECT_THAT(problems(with("generate_pairs", {"sampler.kind=few_step", "sampler.timesteps=[1,1]"})),
              ElementsAre("/sampler/timesteps: expected numbers that descend, found [1.0,1.0]"));
  EXPECT_THAT(problems(with("generate_pairs", {"sampler.kind=few_step", "sampler.timesteps=[1,\"x\"]"})),
              testing::Contains(HasSubstr("/sampler/timesteps: expected a list of finite numbers from 0")));
  EXPECT_THAT(problems(with("generate_pairs", {"sampler.kind=dpm"})),
              ElementsAre(HasSubstr("/sampler/kind: expected one of heun, euler, ddim, pndm, one_step, few_step, found")));
  const json churn = to_json(parse_job_spec(with("generate_pairs", {"sampler.S_churn=40", "sampler.S_min=0.05", "sampler.S_max=50",
                                                                   "sampler.S_noise=1.003", "sampler.guidance_scale=3"}),
                                            kBase, "test"));
  EXPECT_EQ(churn.at("sampler").at("S_churn"), 40.0);
  EXPECT_EQ(to_json(parse_job_spec(churn, kBase, "test")), churn);
}

TEST(JobSpec, ActivationCheckpointingIsForTrainingWithUNets) {
  EXPECT_THAT(problems(with("distill", {"activation_checkpointing=true"})), IsEmpty());
  EXPECT_THAT(problems(with("train_teacher", {"activation_checkpointing=true"})), IsEmpty());
  EXPECT_THAT(problems(with("evaluate", {"activation_checkpointing=true"})),
              ElementsAre("/activation_checkpointing: expected false for kind evaluate, found true"));
  EXPECT_EQ(bit_relevant_config(parse_job_spec(with("distill", {"activation_checkpointing=true"}), kBase, "test")),
            bit_relevant_config(parse_job_spec(minimal("distill"), kBase, "test")));
  EXPECT_THAT(problems(with("train_teacher", {"network.dropout=0.1"})),
              ElementsAre("/network/dropout: expected 0: training here drops nothing; found 0.1"));
}

TEST(NetworkSpec, MustFitTheDatasetsResolution) {
  EXPECT_THAT(problems(with("train_teacher", {"dataset.resolution=28"})),
              ElementsAre("/network/image_size: expected the dataset's resolution (28), found 14"));
  EXPECT_THAT(problems(with("train_teacher", {"dataset.resolution=0"})), IsEmpty());
}

}  // namespace
}  // namespace onestep
