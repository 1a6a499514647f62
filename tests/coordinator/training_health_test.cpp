#include "coordinator/training_health.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "support/files.h"

namespace onestep {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

JobSpec distill_spec(const json& changes = json::object()) {
  json spec = {{"name", "distill"}, {"kind", "distill"}, {"teacher", "/t"}, {"pairs", "/p"}};
  spec.merge_patch(changes);
  return parse_job_spec(spec, "/", "test");
}

// A run of 100 iterations of 100 images: 20 of regression, 10 of the fake score alone, the rest distils; one report an iteration.
class FakeRun {
 public:
  explicit FakeRun(const json& changes = json::object()) : health_(distill_spec(changes)) {}

  std::vector<HealthFinding> report(const std::map<std::string, double>& changes = {}) {
    const std::int64_t iteration = ++iteration_;
    HealthReport report;
    report.stage = iteration <= 20 ? "regression" : iteration <= 30 ? "fake score" : "distill";
    report.iteration = iteration;
    report.images = 100 * iteration;
    report.images_total = 10'000;
    report.values = {{"sample_mean", -0.7}, {"sample_spread", 0.5}};
    if (report.stage != "fake score") report.values["loss_reg"] = 0.01;
    if (report.stage != "regression") report.values["loss_fake"] = 0.4;
    if (report.stage == "distill") {
      report.values.insert({{"dm_gradient_abs", 0.3},
                            {"zero_denominators", 0},
                            {"gradient_norm_generator", 0.5},
                            {"gradient_norm_fake", 0.5}});
    }
    for (const auto& [key, value] : changes) report.values[key] = value;
    return health_.observe(report);
  }
  // Healthy ones until `iteration` is done.
  void healthy_until(std::int64_t iteration) {
    while (iteration_ < iteration) EXPECT_THAT(report(), IsEmpty()) << iteration_;
  }
  // Reports with `changes` until something is found; what, and by how many reports.
  HealthFinding broken(const std::map<std::string, double>& changes, int& reports) {
    for (reports = 1; reports <= 30; ++reports) {
      const std::vector<HealthFinding> found = report(changes);
      if (!found.empty()) return found.front();
    }
    return {};
  }
  std::vector<HealthFinding> evaluation(std::int64_t iteration, double frechet, double accuracy) {
    HealthReport report;
    report.stage = "evaluation";
    report.iteration = iteration;
    report.images = 100 * iteration;
    report.images_total = 10'000;
    report.values = {{"frechet", frechet}, {"class_accuracy", accuracy}};
    return health_.observe_evaluation(report);
  }
  void restart(const json& changes = json::object()) {
    health_ = TrainingHealth(distill_spec(changes), json::parse(health_.to_json().dump()));
  }
  void rewind(std::int64_t iteration) { iteration_ = iteration; }
  void resume() { health_.resume(); }
  [[nodiscard]] std::int64_t iteration() const { return iteration_; }

 private:
  TrainingHealth health_;
  std::int64_t iteration_ = 0;
};

struct Broken {
  const char* code;
  std::map<std::string, double> changes;
  const char* reason;
};

class EachBound : public testing::TestWithParam<Broken> {};

TEST_P(EachBound, IsSaidWithItsValueItsBoundAndSinceWhen) {
  FakeRun run;
  run.healthy_until(40);
  int reports = 0;
  const HealthFinding found = run.broken(GetParam().changes, reports);
  EXPECT_EQ(found.code, GetParam().code);
  EXPECT_FALSE(found.is_over);
  EXPECT_THAT(found.reason, HasSubstr(GetParam().reason));
  EXPECT_THAT(found.reason, HasSubstr("since iteration 41 (4,100 images)"));
  EXPECT_FALSE(found.hint.empty());
  EXPECT_EQ(found.since_iteration, 41);
  EXPECT_EQ(found.iteration, 40 + reports);
  // 0.03 of 10,000 images, from the first broken report: the fourth. A tenth would be 10.
  EXPECT_EQ(reports, std::string(GetParam().code) == "zero_gradient" ? 2 : 4);
  for (int i = 0; i < 20; ++i) EXPECT_THAT(run.report(GetParam().changes), IsEmpty()) << "said once";
}

INSTANTIATE_TEST_SUITE_P(
    TrainingHealth, EachBound,
    testing::Values(
        Broken{"fake_loss", {{"loss_fake", 0.9}}, "0.9 is 2.25 times the 0.4 before the distillation (bound: 2 times)"},
        Broken{"fake_loss_fall", {{"loss_fake", 0.1}}, "0.1 is only 0.25 times the 0.4 before"},
        Broken{"regression_loss", {{"loss_reg", 0.2}}, "0.2 is 20 times the 0.01 at the end of the regression (bound: 3 times)"},
        Broken{"mean_shift", {{"sample_mean", -0.4}}, "-0.4 is 0.6 of their early spread away from the early -0.7 (bound: 0.5)"},
        Broken{"spread_loss", {{"sample_spread", 0.3}}, "0.3 has lost 40 % of the early 0.5 (bound: 20 %)"},
        Broken{"zero_gradient", {{"dm_gradient_abs", 0.0}}, "exactly 0"},
        Broken{"zero_denominators", {{"zero_denominators", 64}}, "50 % of the samples"},
        Broken{"gradient_norm", {{"gradient_norm_fake", 80}}, "the fake score's gradient norm 80 is 160 times the 0.5"}),
    [](const auto& one) { return std::string(one.param.code); });

TEST(TrainingHealth, PairsLearnedByHeartMayBeForgotten) {
  FakeRun run;
  run.healthy_until(40);
  // 3.5 times the end of the regression, but 0.035 is only 0.14 of the samples' variance of 0.25.
  int reports = 0;
  EXPECT_EQ(run.broken({{"loss_reg", 0.035}}, reports).code, "");
}

TEST(TrainingHealth, ABadReportOrTwoAreNoAlarm) {
  FakeRun run;
  run.healthy_until(40);
  for (int i = 0; i < 8; ++i) {
    EXPECT_THAT(run.report({{"loss_fake", 5}}), IsEmpty());
    EXPECT_THAT(run.report({{"loss_fake", 5}}), IsEmpty());
    EXPECT_THAT(run.report(), IsEmpty());
  }
}

TEST(TrainingHealth, AFigureThatIsNotFiniteIsSaidAtOnceInAnyStage) {
  FakeRun run;
  run.healthy_until(3);
  const std::vector<HealthFinding> found = run.report({{"loss_reg", kNan}, {"sample_mean", -kNan}});
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found[0].code, "non_finite");
  EXPECT_THAT(found[0].reason, HasSubstr("loss_reg, sample_mean not finite at iteration 4"));
  run.rewind(2);  // the attempt starts again from a checkpoint and meets the same
  EXPECT_THAT(run.report(), IsEmpty());
  EXPECT_THAT(run.report({{"loss_reg", kNan}}), IsEmpty());
}

TEST(TrainingHealth, WhatIsGoodAgainIsOverAndMayComeBack) {
  FakeRun run;
  run.healthy_until(40);
  int reports = 0;
  run.broken({{"loss_fake", 2}}, reports);
  const HealthFinding over = run.broken({}, reports);
  EXPECT_EQ(over.code, "fake_loss");
  EXPECT_TRUE(over.is_over);
  EXPECT_EQ(reports, 4);
  EXPECT_FALSE(run.broken({{"loss_fake", 2}}, reports).is_over);
}

TEST(TrainingHealth, ARestartNeitherForgetsNorRepeats) {
  FakeRun run;
  run.healthy_until(40);
  run.report({{"loss_fake", 2}});
  run.report({{"loss_fake", 2}});
  run.restart();  // of the coordinator: two of four are counted
  EXPECT_THAT(run.report({{"loss_fake", 2}}), IsEmpty());
  EXPECT_EQ(run.report({{"loss_fake", 2}}).size(), 1U);
  run.restart();
  run.rewind(35);  // of the worker: it repeats what it has lost
  for (int i = 0; i < 30; ++i) EXPECT_THAT(run.report({{"loss_fake", 2}}), IsEmpty()) << run.iteration();
}

TEST(TrainingHealth, AResumedRunIsJudgedAnewAgainstTheSameReferences) {
  FakeRun run;
  run.healthy_until(40);
  int reports = 0;
  run.broken({{"loss_fake", 2}}, reports);
  run.resume();
  run.rewind(40);
  EXPECT_EQ(run.broken({{"loss_fake", 2}}, reports).code, "fake_loss");
  EXPECT_EQ(reports, 4);
}

TEST(TrainingHealth, BoundsAreTheSpecsAndZeroIsOff) {
  int reports = 0;
  FakeRun strict(json{{"health", {{"fake_loss", 1.1}, {"sustained", 0.0}}}});
  strict.healthy_until(40);
  EXPECT_EQ(strict.broken({{"loss_fake", 0.5}}, reports).code, "fake_loss");
  EXPECT_EQ(reports, 2);
  FakeRun off(json{{"health", {{"fake_loss", 0}, {"mean_shift", 0}}}});
  off.healthy_until(40);
  EXPECT_EQ(off.broken({{"loss_fake", 9}, {"sample_mean", 3}}, reports).code, "");
}

TEST(TrainingHealth, RegressionAloneHasNoGradientToBeZero) {
  FakeRun run(json{{"dmd", {{"lambda_dm", 0}}}});
  run.healthy_until(40);
  int reports = 0;
  EXPECT_EQ(run.broken({{"dm_gradient_abs", 0}}, reports).code, "");
}

TEST(TrainingHealth, TwoEvaluationsInARowAgainstTheBest) {
  FakeRun run;
  EXPECT_THAT(run.evaluation(40, 20, 0.9), IsEmpty());
  EXPECT_THAT(run.evaluation(50, 4, 0.95), IsEmpty());
  EXPECT_THAT(run.evaluation(60, 30, 0.95), IsEmpty());
  EXPECT_THAT(run.evaluation(60, 30, 0.95), IsEmpty()) << "the same one twice";
  EXPECT_THAT(run.evaluation(70, 5, 0.5), IsEmpty());
  EXPECT_THAT(run.evaluation(80, 30, 0.95), IsEmpty());
  const std::vector<HealthFinding> found = run.evaluation(90, 40, 0.95);
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found[0].code, "frechet");
  EXPECT_THAT(found[0].reason, HasSubstr("40 is 10 times the best 4 (bound: 5 times) since iteration 80"));
  run.evaluation(91, 4, 0.5);
  EXPECT_EQ(run.evaluation(92, 4, 0.5).back().code, "class_accuracy");
}

TEST(TrainingHealth, AnotherStateIsRefused) {
  EXPECT_THROW(TrainingHealth(distill_spec(), json{{"last_iteration", "x"}}), Error);
}

// --- what real runs reported (tools/golden/make_health_series.py) ---

struct Called {
  std::string code;
  std::int64_t images = 0;
  std::string reason;
};

// The first alarm, from reports and evaluations in the order of their iterations; an evaluation comes after its checkpoint's report.
std::optional<Called> replay(const json& run) {
  json changes = run.at("changes");
  changes.erase("freeze");
  TrainingHealth health(distill_spec(changes));
  std::vector<HealthFinding> findings;
  auto evaluation = run.at("evaluations").begin();
  const auto take = [&](const json& point, const json& values) {
    HealthReport report;
    report.iteration = point.at("iteration");
    report.images = point.at("images");
    report.images_total = run.at("images_total");
    report.stage = point.value("stage", "evaluation");
    for (const auto& [key, value] : values.items()) report.values[key] = value.get<double>();
    for (const HealthFinding& finding :
         report.stage == "evaluation" ? health.observe_evaluation(report) : health.observe(report)) {
      findings.push_back(finding);
    }
    health = TrainingHealth(distill_spec(changes), health.to_json());  // the coordinator keeps nothing else
  };
  for (const json& point : run.at("points")) {
    take(point, point.at("values"));
    while (evaluation != run.at("evaluations").end() && evaluation->at("iteration") <= point.at("iteration")) {
      take(*evaluation, *evaluation);
      ++evaluation;
    }
  }
  if (findings.empty()) return std::nullopt;
  return Called{findings[0].code, findings[0].images, findings[0].reason};
}

json recorded_runs() { return json::parse(slurp(ONESTEP_SOURCE_DIR "/tests/golden/health_series.json")).at("runs"); }

// When it collapsed, by its pictures alone: the first judged checkpoint of the DMD phase that is three times as far from the data
// as the one before that phase, or has lost a tenth of its class accuracy. Nothing of this is what alarms are raised by.
std::int64_t images_at_collapse(const json& run) {
  const json* before = nullptr;
  std::int64_t start = 0;
  for (const json& point : run.at("points")) {
    if (point.at("stage") != "distill") start = point.at("iteration");
  }
  for (const json& evaluation : run.at("evaluations")) {
    if (evaluation.at("iteration") <= start) {
      before = &evaluation;
    } else if (before != nullptr && (evaluation.at("frechet") > 3 * before->at("frechet").get<double>() ||
                                     evaluation.at("class_accuracy") < 0.9 * before->at("class_accuracy").get<double>())) {
      return evaluation.at("images");
    }
  }
  // Its pictures stay as they were: nothing is matched from the beginning of that phase on.
  return before->at("images");
}

TEST(RecordedRuns, HealthyOnesAreNeverCalled) {
  int num_runs = 0;
  for (const json& run : recorded_runs()) {
    if (!run.at("healthy").get<bool>()) continue;
    ++num_runs;
    const std::optional<Called> called = replay(run);
    EXPECT_FALSE(called) << run.at("name") << ": " << called->code << ": " << called->reason;
  }
  EXPECT_GE(num_runs, 5);
}

TEST(RecordedRuns, CollapsingOnesAreCalledWithinATenthOfTheirImages) {
  int num_runs = 0;
  for (const json& run : recorded_runs()) {
    if (run.at("healthy").get<bool>()) continue;
    ++num_runs;
    SCOPED_TRACE(run.at("name").get<std::string>());
    const std::optional<Called> called = replay(run);
    ASSERT_TRUE(called);
    const std::int64_t collapse = images_at_collapse(run);
    const std::int64_t tenth = run.at("images_total").get<std::int64_t>() / 10;
    EXPECT_LE(called->images, collapse + tenth) << called->code << ": " << called->reason;
    std::cout << run.at("name").get<std::string>() << ": collapsed at " << collapse << ", called at " << called->images << ": "
              << called->code << ": " << called->reason << "\n";
  }
  EXPECT_GE(num_runs, 5);
}

}  // namespace
}  // namespace onestep
