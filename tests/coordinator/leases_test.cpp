#include "coordinator/leases.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/error.h"
#include "common/pair_file.h"
#include "support/files.h"
#include "support/temp_folder.h"

namespace onestep {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

GeneratePairsSpec pairs(std::int64_t count, std::int64_t rows_per_shard) {
  GeneratePairsSpec spec;
  spec.count = count;
  spec.rows_per_shard = rows_per_shard;
  return spec;
}

std::vector<std::int64_t> shards(const std::vector<LeaseRecord>& leases) {
  std::vector<std::int64_t> indices;
  for (const LeaseRecord& lease : leases) indices.push_back(lease.shard);
  return indices;
}

bool nothing(const std::string&) { return false; }
bool everything(const std::string&) { return true; }

TEST(Leases, ARankIsGrantedItsShardsOfThePlan) {
  const GeneratePairsSpec spec = pairs(1050, 250);
  EXPECT_THAT(shards(grant_leases(spec, 2, 0, 1, {}, nothing)), ElementsAre(0, 2, 4));
  const std::vector<LeaseRecord> second = grant_leases(spec, 2, 1, 3, {}, nothing);
  EXPECT_THAT(shards(second), ElementsAre(1, 3));
  EXPECT_EQ(second[1].first, 750);
  EXPECT_EQ(second[1].count, 250);
  EXPECT_EQ(second[1].attempt, 3);
  EXPECT_EQ(second[1].state, "leased");
  EXPECT_EQ(grant_leases(spec, 2, 0, 1, {}, nothing)[2].count, 50);
}

TEST(Leases, FinishedShardsAreNotGrantedAgainUnlessTheirFileIsGone) {
  const GeneratePairsSpec spec = pairs(500, 250);
  const std::vector<LeaseRecord> known = {{0, 0, 250, 0, 1, "done", "x"},
                                          {1, 250, 250, 0, 0, "released", ""}};
  EXPECT_THAT(shards(grant_leases(spec, 1, 0, 2, known, everything)), ElementsAre(1));
  EXPECT_THAT(shards(grant_leases(spec, 1, 0, 2, known, nothing)), ElementsAre(0, 1));
}

TEST(Leases, AskForTheFilesThatThePairSetWrites) {
  std::vector<std::string> asked;
  const std::vector<LeaseRecord> known = {{0, 0, 250, 0, 1, "done", "x"},
                                          {1, 250, 250, 0, 1, "done", "y"}};
  grant_leases(pairs(500, 250), 1, 0, 2, known, [&](const std::string& name) {
    asked.push_back(name);
    return true;
  });
  EXPECT_THAT(asked, ElementsAre(pair_shard_name(0), pair_shard_name(1)));
}

TEST(Leases, CountPublishedShardsOnly) {
  TempFolder folder;
  spit(folder / pair_shard_name(0), "");
  spit(folder / pair_shard_name(7), "");
  spit(folder / (pair_shard_name(8) + ".tmp"), "");
  spit(folder / "manifest.json", "");
  EXPECT_EQ(count_shard_files(folder.path()), 2);
  EXPECT_EQ(count_shard_files(folder / "absent"), 0);
}

TEST(Leases, AFinishedShardMustBeInThePlan) {
  const GeneratePairsSpec spec = pairs(500, 250);
  const json good = {{"attempt", 1}, {"index", 1}, {"first", 250}, {"count", 250}, {"sha256", "x"}};
  const LeaseRecord lease = finished_shard(spec, 2, 4, good);
  EXPECT_EQ(lease.state, "done");
  EXPECT_EQ(lease.rank, 1);
  EXPECT_EQ(lease.attempt, 4);
  EXPECT_EQ(lease.sha256, "x");
  for (const char* key : {"index", "first", "count", "sha256"}) {
    json bad = good;
    bad[key] = json::array();
    try {
      finished_shard(spec, 2, 4, bad);
      ADD_FAILURE() << key << " of a wrong type was taken";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kCorrupt);
      EXPECT_THAT(error.what(), HasSubstr(key));
    }
  }
  json foreign = good;
  foreign["count"] = 249;
  EXPECT_THROW(finished_shard(spec, 2, 4, foreign), Error);
}

TEST(Leases, ThePlanShowsWhatIsKnown) {
  const std::vector<LeaseRecord> plan =
      plan_with_leases(pairs(750, 250), 2, {{1, 250, 250, 1, 3, "done", "x"}});
  ASSERT_EQ(plan.size(), 3U);
  EXPECT_EQ(plan[0].state, "released");
  EXPECT_EQ(plan[1].state, "done");
  EXPECT_EQ(plan[2].rank, 0);
  EXPECT_EQ(shard_plan_body({plan[1]}).dump(),
            R"({"shards":[{"count":250,"first":250,"index":1,"rank":1}]})");
}

}  // namespace
}  // namespace onestep
