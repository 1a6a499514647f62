// A curve of ten million points opens at once.
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <iostream>

#include "coordinator/api.h"
#include "support/idle_launcher.h"
#include "support/temp_folder.h"

namespace onestep {
namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

TEST(LongSeries, TenMillionPointsOpenInUnderThreeTenthsOfASecond) {
  constexpr std::int64_t kPoints = 10'000'000;
  const TempFolder folder;
  {
    Store store(folder / "coordinator.sqlite");
    Store::Transaction transaction = store.begin();
    store.insert_pipeline({store.next_pipeline_number(), "p-p1", "p", 5.0, {}});
    JobRecord job;
    job.number = store.next_job_number();
    job.id = "a-1";
    job.name = "a";
    job.kind = "train_teacher";
    job.pipeline = "p-p1";
    job.state = JobState::kSucceeded;
    job.spec = nlohmann::json::object();
    store.insert_job(job);
    transaction.commit();
    const auto start = std::chrono::steady_clock::now();
    std::vector<MetricPoint> points;
    for (std::int64_t i = 0; i < kPoints; ++i) {
      const double value = i == 7'654'321 ? 1000.0 : std::sin(static_cast<double>(i) / 1e5);
      points.push_back({"loss", "teacher", i, i * 128, 1, 0, value});
      if (points.size() < 100'000) continue;
      Store::Transaction batch = store.begin();
      store.insert_metrics("a-1", points);
      batch.commit();
      points.clear();
    }
    std::cout << "wrote " << kPoints << " points in " << seconds_since(start) << " s\n";
  }
  // Opened anew: nothing of it is in this process's memory.
  const auto opening = std::chrono::steady_clock::now();
  Coordinator coordinator({.data = folder.path(), .slots = 1, .clock = [] { return 1.7e9; }},
                          std::make_unique<IdleLauncher>());
  Api api(coordinator);
  std::cout << "started on it in " << seconds_since(opening) << " s\n";
  double slowest = 0;
  for (const std::string query : {"max_points=1000", "max_points=2", "max_points=100000", "keys=loss"}) {
    const auto start = std::chrono::steady_clock::now();
    const HttpResponse response = api.handle(
        {.method = "GET",
         .target = "/api/v1/jobs/a-1/metrics?" + query,
         .headers = {{"host", "127.0.0.1:8080"}},
         .body = ""});
    const double seconds = seconds_since(start);
    std::cout << query << ": " << seconds << " s, " << response.body.size() << " bytes\n";
    ASSERT_EQ(response.status, 200) << response.body;
    EXPECT_NE(response.body.find("1000.0"), std::string::npos) << "the peak is kept";
    if (query != "max_points=100000") slowest = std::max(slowest, seconds);
  }
  EXPECT_LT(slowest, 0.3);
}

}  // namespace
}  // namespace onestep
