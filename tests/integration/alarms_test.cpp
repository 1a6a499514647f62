// Alarms of real runs: a collapsing one is called and stopped with its reason, a healthy one is left alone.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "integration/finished_smoke.h"
#include "integration/service.h"
#include "support/temp_folder.h"

namespace onestep {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

class AlarmsOfRuns : public ::testing::Test {
 protected:
  const FinishedSmoke smoke_ = finished_smoke();
  const TempFolder folder_;
  Service service_{folder_ / "data"};

  // A generator that is far too fast for its fake score, and no pairs to hold it.
  json collapsing() const {
    json spec = long_student(smoke_, 1);
    spec["dmd"].update({{"iterations", 300}, {"lambda_reg", 0.0}, {"pairs", 0}});
    spec["dmd"]["generator"].update({{"beta1", 0.9}, {"learning_rate", 0.05}});
    spec["report_every"] = 2;
    return spec;
  }
};

TEST_F(AlarmsOfRuns, ACollapsingRunIsStoppedWithItsReason) {
  json spec = collapsing();
  spec["health"] = {{"on_alarm", "stop"}};
  const std::string id = service_.submit(spec).at(0);
  const json job = service_.wait_for(id, {"cancelled"});
  EXPECT_THAT(job.at("reason").get<std::string>(), HasSubstr("stopped by the alarm "));
  EXPECT_THAT(job.at("reason").get<std::string>(), HasSubstr(", after saving"));
  ASSERT_GE(job.at("alarms").size(), 1u);
  const json& alarm = job.at("alarms").at(0);
  EXPECT_EQ(alarm.at("action"), "stop");
  EXPECT_LE(alarm.at("images").get<std::int64_t>() - alarm.at("since_images").get<std::int64_t>(),
            job.at("progress").at("images_total").get<std::int64_t>() / 10);
  EXPECT_LT(job.at("progress").at("iteration"), job.at("progress").at("iterations"));

  const std::string url = " --url " + service_.url();
  const std::string line = "alarm " + alarm.at("code").get<std::string>() + ": ";
  EXPECT_THAT(shell("onestep show " + id + url).output, HasSubstr(line));
  EXPECT_THAT(shell("onestep jobs" + url).output, HasSubstr("!"));
  EXPECT_THAT(service_.client().request("GET", "/metrics").body,
              HasSubstr("onestep_alarms{code=\"" + alarm.at("code").get<std::string>() + "\"} 1\n"));
  service_.kill_hard();
  service_.start();
  EXPECT_EQ(service_.job(id).at("alarms"), job.at("alarms")) << "kept, and not repeated";
}

TEST_F(AlarmsOfRuns, ACheckpointIsTakenAndTheRunGoesOn) {
  json spec = collapsing();
  spec["dmd"]["iterations"] = 100;
  spec["checkpoint"]["every_iterations"] = 0;
  spec["health"] = {{"on_alarm", "checkpoint"}};
  const std::string id = service_.submit(spec).at(0);
  const json job = service_.wait_for(id, {"succeeded"});
  ASSERT_GE(job.at("alarms").size(), 1u);
  const json checkpoints = service_.client().get("/api/v1/jobs/" + id + "/checkpoints").at("items");
  EXPECT_GE(checkpoints.size(), 2u) << "the final one and the alarm's";
  EXPECT_GE(checkpoints.at(0).at("iteration"), job.at("alarms").at(0).at("iteration"));
}

TEST_F(AlarmsOfRuns, AHealthyRunIsNeverCalled) {
  const std::string id = service_.submit(long_student(smoke_, 1)).at(0);
  EXPECT_EQ(service_.wait_for(id, {"succeeded"}).at("alarms"), json::array());
  EXPECT_EQ(service_.job(id).at("num_alarms"), 0);
}

}  // namespace
}  // namespace onestep
