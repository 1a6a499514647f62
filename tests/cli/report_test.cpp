#include "cli/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/files.h"
#include "support/temp_folder.h"

namespace onestep {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::Not;

json job(double started, double ended, json result) {
  return {{"state", "succeeded"}, {"attempts", {{{"number", 1}, {"started", started}, {"ended", ended}}}}, {"result", result}};
}

std::map<std::string, json> finished_jobs() {
  const auto evaluation = [](double started, double frechet) {
    return job(started, started + 5, {{"frechet", frechet}, {"class_accuracy", 0.95}, {"images_per_second", 3000.0}, {"seconds", 5}});
  };
  std::map<std::string, json> jobs = {
          {"detector", job(100, 110, {{"seconds", 10.0}})},
          {"teacher", job(110, 300, {{"seconds", 190.0}})},
          {"pairs", job(300, 310, {{"seconds", 9.0}})},
          {"distill", job(310, 400, {{"seconds", 89.0}, {"images_per_second", 900.0}, {"ranks", 2}, {"generator_sha256", "abcd"}})},
          {"evaluate_real", evaluation(400, 1.99)},
          {"evaluate_teacher", evaluation(405, 1.0)},
          {"evaluate_teacher_one_step", evaluation(410, 282.0)},
          {"evaluate_regression_only", evaluation(415, 6.3)},
          {"evaluate_one_step", evaluation(420, 2.1)}};
  jobs["evaluate_teacher"]["spec"]["sampler"] = {{"kind", "heun"}, {"steps", 18}};
  return jobs;
}

TEST(Report, HasExactlyTheAgreedKeys) {
  const nlohmann::ordered_json report = make_report(finished_jobs());
  nlohmann::ordered_json without_commit = report;
  EXPECT_TRUE(report.at("commit").is_string());
  without_commit["commit"] = "c";
  EXPECT_EQ(without_commit.dump(),
            R"({"ranks":2,"commit":"c","seconds":{"train_detector":10.0,"train_teacher":190.0,"generate_pairs":9.0,)"
            R"("distill":89.0,"total":325.0},"frechet":{"real_split_half":1.99,"teacher_heun18":1.0,)"
            R"("teacher_one_step":282.0,"regression_only":6.3,"one_step":2.1},"class_accuracy":{"teacher_heun18":0.95,)"
            R"("one_step":0.95},"images_per_second":{"distill":900.0,"sample_one_step":3000.0,"sample_heun18":3000.0},)"
            R"("generator_sha256":"abcd"})");
}

TEST(Report, NamesTheJobAndTheFigureThatAreMissing) {
  auto jobs = finished_jobs();
  jobs["evaluate_one_step"]["result"].erase("frechet");
  auto error = error_of([&] { make_report(jobs); });
  ASSERT_TRUE(error);
  EXPECT_THAT(error->message, HasSubstr("evaluate_one_step"));
  EXPECT_THAT(error->message, HasSubstr("frechet"));
  jobs = finished_jobs();
  jobs.erase("teacher");
  error = error_of([&] { make_report(jobs); });
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code, ErrorCode::kNotFound);
  jobs = finished_jobs();
  jobs["distill"]["state"] = "failed";
  error = error_of([&] { make_report(jobs); });
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code, ErrorCode::kConflict);
}

TEST(Report, NamesTheTeachersSamplerAndLeavesOutRegressionWhereThereIsNone) {
  auto jobs = finished_jobs();
  jobs.erase("evaluate_regression_only");
  jobs["evaluate_teacher"]["spec"]["sampler"] = {{"kind", "pndm"}, {"steps", 25}};
  const nlohmann::ordered_json report = make_report(jobs);
  EXPECT_EQ(report.at("frechet").dump(), R"({"real_split_half":1.99,"teacher_pndm25":1.0,"teacher_one_step":282.0,"one_step":2.1})");
  const std::string text = report_table(report, "report.json");
  EXPECT_THAT(text, HasSubstr("teacher, 25 steps"));
  EXPECT_THAT(text, Not(HasSubstr("regression")));
  jobs["evaluate_teacher"].erase("spec");
  const auto error = error_of([&] { make_report(jobs); });
  ASSERT_TRUE(error);
  EXPECT_THAT(error->message, HasSubstr("evaluate_teacher"));
}

TEST(Report, TheTableShowsTheSameFigures) {
  const std::string text = report_table(make_report(finished_jobs()), "report.json");
  for (const char* figure : {"1.99", "1.00", "282", "6.30", "2.10", "0.950", "3,000", "0:10", "3:10", "1:29", "5:25", "2 ranks", "900", "abcd"}) {
    EXPECT_THAT(text, HasSubstr(figure));
  }
}

TEST(Report, ASavedOneIsShownAndADamagedOneRefused) {
  const TempFolder folder;
  spit(folder / "report.json", make_report(finished_jobs()).dump());
  ::testing::internal::CaptureStdout();
  show_saved_report(folder.path(), false);
  EXPECT_THAT(::testing::internal::GetCapturedStdout(), HasSubstr(folder.path() + "/grid.png"));
  for (const char* damaged : {"", "[]", "{\"ranks\":2}"}) {
    spit(folder / "report.json", damaged);
    const auto error = error_of([&] { show_saved_report(folder.path(), false); });
    ASSERT_TRUE(error) << damaged;
    EXPECT_EQ(error->code, ErrorCode::kCorrupt) << damaged;
  }
}

}  // namespace
}  // namespace onestep
