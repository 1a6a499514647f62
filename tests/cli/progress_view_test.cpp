#include "cli/progress_view.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "cli/text.h"

namespace onestep {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

json running_job(int images) {
  return {{"name", "distill"},
          {"state", "running"},
          {"attempts", 1},
          {"progress",
           {{"stage", "dmd"},
            {"images", images},
            {"images_total", 20000},
            {"images_per_second", 1234.5},
            {"seconds_left", 75.0},
            {"metrics", {{"loss", 0.123456}}}}}};
}

TEST(JobLine, ShowsStageImagesRateLossAndTimeLeft) {
  EXPECT_EQ(job_line(running_job(10000), 8, 200),
            "distill   [##########----------]  dmd  10,000/20,000 images  1,234 images/s  loss 0.123  1:15 left");
}

TEST(JobLine, SaysWhichLossItIs) {
  json job = running_job(1);
  job["progress"]["metrics"] = {{"loss_reg", 0.01}, {"loss_fake", 0.43}};
  EXPECT_THAT(job_line(job, 1, 200), HasSubstr("  fake loss 0.430  "));
  job["progress"]["metrics"] = {{"loss_reg", 0.01}};
  EXPECT_THAT(job_line(job, 1, 200), HasSubstr("  regression loss 0.0100  "));
}

TEST(JobLine, ShowsWhyAJobIsNotRunning) {
  EXPECT_EQ(job_line({{"name", "a"}, {"state", "failed"}, {"attempts", 3}, {"reason", "line one\ntwo"}}, 1, 80),
            "a  failed  attempt 3: line one two");
  EXPECT_EQ(job_line({{"name", "a"}, {"state", "succeeded"}, {"attempts", 1}, {"digest", "0123456789abcdef"}}, 1, 80),
            "a  succeeded  0123456789ab");
}

TEST(JobLine, NeverWiderThanTheScreen) {
  for (std::size_t columns = 20; columns < 100; ++columns) {
    EXPECT_LE(display_width(job_line(running_job(1), 10, columns)), columns);
  }
}

TEST(ProgressView, WithoutATerminalALineAChange) {
  std::ostringstream out;
  ProgressView view(out, false, 80);
  view.show({running_job(10)});
  view.show({running_job(20)});
  EXPECT_EQ(out.str(), "distill: running, dmd\n");
  json done = running_job(20);
  done["state"] = "succeeded";
  done["digest"] = "abc";
  view.show({done});
  view.show({done});
  EXPECT_EQ(out.str(), "distill: running, dmd\ndistill: succeeded  abc\n");
}

TEST(ProgressView, ANewAttemptIsAChange) {
  std::ostringstream out;
  ProgressView view(out, false, 80);
  json job = running_job(10);
  view.show({job});
  job["attempts"] = 2;
  view.show({job});
  EXPECT_EQ(out.str(), "distill: running, dmd\ndistill: running, dmd, attempt 2\n");
}

TEST(ProgressView, OnATerminalTheBlockIsRedrawnInPlace) {
  std::ostringstream out;
  ProgressView view(out, true, 80);
  view.show({running_job(10), running_job(10)});
  EXPECT_THAT(out.str(), ::testing::Not(HasSubstr("\x1b[2A")));
  view.show({running_job(20), running_job(10)});
  EXPECT_THAT(out.str(), HasSubstr("\x1b[2A"));
}

}  // namespace
}  // namespace onestep
