// Curves of any length through few points, checked against the whole curve.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <random>

#include "coordinator/series.h"
#include "coordinator/store.h"
#include "support/temp_folder.h"

namespace onestep {
namespace {

using testing::Le;
using testing::SizeIs;

MetricPoint point(const std::string& key, std::int64_t iteration, double value, int attempt = 1,
                  const std::string& stage = "dmd") {
  return {key, stage, iteration, iteration * 32, attempt, 0, value};
}

class StoreSeries : public testing::Test {
 protected:
  StoreSeries() : store_(folder_ / "db.sqlite") {
    Store::Transaction transaction = store_.begin();
    PipelineRecord pipeline;
    pipeline.number = store_.next_pipeline_number();
    pipeline.id = pipeline.name = "p";
    store_.insert_pipeline(pipeline);
    JobRecord job;
    job.number = store_.next_job_number();
    job.id = "a-1";
    job.pipeline = "p";
    job.spec = nlohmann::json::object();
    store_.insert_job(job);
    transaction.commit();
  }
  void insert(const std::vector<MetricPoint>& points) {
    Store::Transaction transaction = store_.begin();
    store_.insert_metrics("a-1", points);
    transaction.commit();
  }
  std::vector<MetricPoint> curve(const std::string& key, std::int64_t max_points) {
    const std::vector<MetricSeries> found = store_.metrics("a-1", {key}, max_points);
    return found.empty() ? std::vector<MetricPoint>{} : found.at(0).points;
  }

  TempFolder folder_;
  Store store_;
};

double lowest(const std::vector<MetricPoint>& points) {
  return std::min_element(points.begin(), points.end(), [](const auto& a, const auto& b) {
           return a.value < b.value;
         })->value;
}
double highest(const std::vector<MetricPoint>& points) {
  return std::max_element(points.begin(), points.end(), [](const auto& a, const auto& b) {
           return a.value < b.value;
         })->value;
}

// Whatever is inserted in whatever pieces, repeated or out of order: few points that are of the
// curve, in its order, with the lowest and the highest of every tenth of it.
TEST_F(StoreSeries, FewPointsShowEveryPeak) {
  std::mt19937 random(7);
  std::map<std::int64_t, double> whole;
  for (int round = 0; round < 60; ++round) {
    std::vector<MetricPoint> points;
    const std::int64_t first = static_cast<std::int64_t>(random() % 4000) * 5;
    for (std::int64_t i = 0; i < 200; ++i) {
      const std::int64_t iteration = first + i * 5;
      const double value = static_cast<double>(random()) / 4e9;
      whole[iteration] = value;
      points.push_back(point("loss", iteration, value, round + 1));
    }
    insert(points);
  }
  whole[9'995] = 50;
  whole[10'000] = -50;
  insert({point("loss", 9'995, 50), point("loss", 10'000, -50)});

  const std::vector<MetricPoint> all = curve("loss", 0);
  ASSERT_EQ(all.size(), whole.size());
  for (const std::int64_t max_points : {2, 3, 10, 100, 1000}) {
    const std::vector<MetricPoint> few = curve("loss", max_points);
    ASSERT_LE(few.size(), static_cast<std::size_t>(max_points));
    ASSERT_GE(few.size(), static_cast<std::size_t>(max_points / 4));
    EXPECT_EQ(lowest(few), -50);
    EXPECT_EQ(highest(few), 50);
    for (std::size_t i = 0; i < few.size(); ++i) {
      EXPECT_EQ(few[i].value, whole.at(few[i].iteration)) << "a point of the curve";
      EXPECT_EQ(few[i].images, few[i].iteration * 32);
      if (i > 0) {
        EXPECT_LT(few[i - 1].iteration, few[i].iteration);
      }
    }
  }
}

TEST_F(StoreSeries, ARepeatedIterationReplacesAPeak) {
  std::vector<MetricPoint> points;
  for (std::int64_t i = 0; i < 5000; ++i) points.push_back(point("loss", i, i == 2500 ? 99 : 1));
  insert(points);
  EXPECT_EQ(highest(curve("loss", 20)), 99);
  insert({point("loss", 2500, 2, 2)});
  EXPECT_EQ(highest(curve("loss", 20)), 2);
  EXPECT_EQ(curve("loss", 0).size(), 5000U);
}

TEST_F(StoreSeries, StagesFollowEachOtherAndShareThePoints) {
  for (const char* stage : {"warmup", "fake_warmup", "dmd"}) {
    std::vector<MetricPoint> points;
    const std::int64_t length = stage == std::string("dmd") ? 3000 : 30;
    for (std::int64_t i = 0; i < length; ++i) {
      points.push_back(point("loss", i, std::sin(static_cast<double>(i)), 1, stage));
    }
    insert(points);
  }
  EXPECT_THAT(curve("loss", 5000), SizeIs(3060));
  const std::vector<MetricPoint> few = curve("loss", 100);
  EXPECT_THAT(few, SizeIs(Le(100U)));
  std::vector<std::string> stages;
  for (const MetricPoint& one : few) {
    if (stages.empty() || stages.back() != one.stage) stages.push_back(one.stage);
  }
  EXPECT_THAT(stages, testing::ElementsAre("warmup", "fake_warmup", "dmd"));
}

TEST_F(StoreSeries, KeysAreApart) {
  insert({point("loss", 1, 0.5), point("norm", 1, 3.0), point("loss", 2, 0.25)});
  EXPECT_THAT(store_.metrics("a-1", {}, 0), SizeIs(2));
  EXPECT_THAT(curve("loss", 0), SizeIs(2));
  EXPECT_THAT(store_.metrics("a-1", {"none"}, 0), SizeIs(0));
  EXPECT_THAT(store_.metrics("b-1", {}, 0), SizeIs(0));
}

TEST(Series, MergedGroupsCoverEverything) {
  std::vector<Stretch> stretches;
  for (int i = 0; i < 10; ++i) stretches.push_back({i, 2, -1.0 * i, 2 * i, 1.0 * i, 2 * i + 1});
  const std::vector<Stretch> groups = merged(stretches, 3);
  ASSERT_THAT(groups, SizeIs(3));
  EXPECT_EQ(groups[0].count + groups[1].count + groups[2].count, 20);
  EXPECT_EQ(groups[2].low, -9.0);
  EXPECT_EQ(groups[2].high_iteration, 19);
  EXPECT_THAT(merged(stretches, 10), SizeIs(10));
}

}  // namespace
}  // namespace onestep
