#include "cli/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/error.h"

namespace onestep {
namespace {

using nlohmann::json;
using testing::HasSubstr;

json measured() {
  return {{"jobs",
           {{{"name", "distill"},
             {"kind", "distill"},
             {"ranks", 2},
             {"images", 7200},
             {"networks", 3},
             {"parameters", 207172},
             {"pair_set_bytes", 792000},
             {"bytes_a_rank",
              {{"parameters", 3 << 20},
               {"gradients", 2 << 20},
               {"sum_buffers", 2 << 20},
               {"moments", 2 << 20},
               {"average", 1 << 20},
               {"checkpoint_copy", 4 << 20},
               {"exchange", 1 << 20},
               {"process", 100 << 20},
               {"activations", 50 << 20},
               {"total", 165 << 20}}}},
            {{"name", "pairs"}, {"kind", "generate_pairs"}, {"ranks", 1}, {"images", 500}, {"pair_set_bytes", 792000}}}}};
}

TEST(Plan, BytesAreReadAsPeopleWriteThem) {
  EXPECT_EQ(bytes_from_text("1000000"), 1000000);
  EXPECT_EQ(bytes_from_text("16G"), std::int64_t{16} << 30);
  EXPECT_EQ(bytes_from_text("1.5GiB"), std::int64_t{3} << 29);
  EXPECT_EQ(bytes_from_text("512M"), 512 << 20);
  for (const char* wrong : {"", "G", "-1G", "0", "12X", "1GB", "16 G", "1e30", "nan"}) {
    EXPECT_THROW(bytes_from_text(wrong), Error) << wrong;
  }
}

TEST(Plan, AllRanksOfAJobMustFit) {
  const std::int64_t two_ranks = 330 << 20;
  EXPECT_TRUE(judged_plan(measured(), two_ranks, 0)["jobs"][0]["fits"]);
  EXPECT_FALSE(judged_plan(measured(), two_ranks - 1, 0)["jobs"][0]["fits"]);
  EXPECT_FALSE(judged_plan(measured(), 1, 0)["jobs"][1].contains("fits"));
}

TEST(Plan, TheTimeDecidesTheSpeed) {
  EXPECT_EQ(judged_plan(measured(), 1, 2)["jobs"][0]["images_per_second"], 1.0);
  EXPECT_FALSE(judged_plan(measured(), 1, 0)["jobs"][0].contains("images_per_second"));
}

TEST(Plan, TheTextSaysWhatTakesTheMemory) {
  const std::string text = plan_text(judged_plan(measured(), std::int64_t{1} << 30, 2));
  EXPECT_THAT(text, HasSubstr("distill (distill)\n"));
  EXPECT_THAT(text, HasSubstr("activations of a micro-batch       50.0 MiB\n"));
  EXPECT_THAT(text, HasSubstr("2 ranks                            330.0 MiB\n"));
  EXPECT_THAT(text, HasSubstr("fits into 1.0 GiB"));
  EXPECT_THAT(plan_text(judged_plan(measured(), 1 << 20, 0)), HasSubstr("DOES NOT FIT into 1.0 MiB"));
}

}  // namespace
}  // namespace onestep
