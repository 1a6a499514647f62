#include "worker/run/memory_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <iomanip>
#include <sstream>
#include <vector>

#include "common/config.h"
#include "common/error.h"
#include "support/files.h"
#include "worker/comm/canonical_reduce.h"

namespace onestep {
namespace {

constexpr std::int64_t kLength = 1 << 20;
constexpr std::int64_t kBytes = 4 * kLength;

JobSpec spec_of(const std::string& kind, std::int64_t micro_batches, const std::string& reduction = "exact") {
  JobSpec spec;
  spec.kind = kind;
  spec.micro_batches = micro_batches;
  spec.reduction = reduction;
  return spec;
}

TEST(MemoryPlan, ATeacherHoldsOneNetworkAndTheWholeOptimizerAlone) {
  const MemoryPlan plan = state_plan(spec_of("train_teacher", 1), kLength, 1);
  EXPECT_EQ(plan.parameters, kBytes);
  EXPECT_EQ(plan.gradients, kBytes);
  EXPECT_EQ(plan.sum_buffers, kBytes);
  EXPECT_EQ(plan.moments, 2 * kBytes);
  EXPECT_EQ(plan.average, kBytes);
  EXPECT_EQ(plan.checkpoint_copy, 4 * kBytes);
  EXPECT_EQ(plan.exchange, 0);
  EXPECT_EQ(plan.state(), 6 * kBytes);
  EXPECT_EQ(plan.total(), 10 * kBytes);
}

TEST(MemoryPlan, ADistillationHoldsThreeNetworksAndTrainsTwo) {
  const MemoryPlan plan = state_plan(spec_of("distill", 8), kLength, 2);
  EXPECT_EQ(plan.parameters, 3 * kBytes);
  EXPECT_EQ(plan.gradients, 2 * kBytes);
  EXPECT_EQ(plan.sum_buffers, 2 * 2 * kBytes) << "four leaves a rank: log2(4) buffers a network";
  EXPECT_EQ(plan.moments, 2 * kBytes) << "half of two networks' two";
  EXPECT_EQ(plan.average, kBytes / 2) << "the generator's alone";
  EXPECT_EQ(plan.checkpoint_copy, 7 * kBytes / 2);
}

TEST(MemoryPlan, ADiscriminatorsHeadIsTrainedWithTheFakeScore) {
  const MemoryPlan plain = state_plan(spec_of("distill", 8), kLength, 2);
  const MemoryPlan plan = state_plan(spec_of("distill", 8), kLength, 2, kLength / 4);
  const std::int64_t head = kBytes / 4;
  EXPECT_EQ(plan.parameters - plain.parameters, head);
  EXPECT_EQ(plan.gradients - plain.gradients, head);
  EXPECT_EQ(plan.sum_buffers - plain.sum_buffers, 2 * head);
  EXPECT_EQ(plan.moments - plain.moments, head);
  EXPECT_EQ(plan.average, plain.average);
  EXPECT_EQ(plan.checkpoint_copy - plain.checkpoint_copy, 3 * head / 2);
}

// The binary counter keeps max(1, log2(leaves)) buffers: what TreeAccumulator is seen to keep.
TEST(MemoryPlan, SumBuffersAreThoseOfTheTree) {
  for (const std::int64_t leaves : {1, 2, 4, 8, 16, 64}) {
    TreeAccumulator tree(4);
    const std::vector<float> leaf(4, 1.0F);
    for (std::int64_t i = 0; i < leaves; ++i) tree.add(leaf);
    tree.finish();
    EXPECT_EQ(state_plan(spec_of("train_teacher", leaves), kLength, 1).sum_buffers,
              static_cast<std::int64_t>(tree.num_buffers()) * kBytes)
        << leaves;
  }
}

// The tables under "What it costs" in the READMEs of configs/: lengths of the published networks without their padding.
TEST(MemoryPlan, TheReadmesOfThePublishedRecipesSayWhatFollows) {
  struct Row {
    const char* file;
    const char* readme;
    std::int64_t length, row_bytes;
    const char* networks;
    const char* pairs;
  };
  const auto rounded = [](double value, int digits) {
    std::ostringstream text;
    text << std::setprecision(digits) << std::showpoint << value;
    return text.str();
  };
  for (const Row& row : {Row{"cifar10/cond", "cifar10", 55'735'299, 24'592, "1.70", "2.46"},
                         Row{"cifar10/uncond", "cifar10", 55'733'891, 24'592, "1.70", "12.3"},
                         Row{"imagenet64/cond", "imagenet64", 295'899'267, 98'320, "9.0", "2.46"},
                         Row{"sd15/laion_guidance3", "sd15", 859'520'964, 131'088, "24.3", "65.5"},
                         Row{"sd15/laion_guidance8", "sd15", 859'520'964, 131'088, "24.3", "1.57"}}) {
    SCOPED_TRACE(row.file);
    const std::string configs = ONESTEP_SOURCE_DIR "/configs/", file = configs + row.file + ".json";
    const Pipeline pipeline = parse_pipeline(read_json_file(file), std::filesystem::path(file).parent_path(), file);
    for (const PipelineJob& job : pipeline.jobs) {
      if (job.spec.name == "distill") {
        EXPECT_EQ(rounded(static_cast<double>(state_plan(job.spec, row.length, job.spec.ranks).state()) / 1e9,
                          static_cast<int>(std::string(row.networks).size()) - 1), row.networks);
      }
      if (const auto* pairs = std::get_if<GeneratePairsSpec>(&job.spec.options)) {
        const double gigabytes = static_cast<double>(pairs->count * row.row_bytes) / 1e9;
        EXPECT_EQ(rounded(gigabytes < 1000 ? gigabytes : gigabytes / 1000, 3), row.pairs);
      }
    }
    const std::string readme = slurp(configs + row.readme + "/README.md");
    EXPECT_THAT(readme, testing::HasSubstr(std::string(row.networks) + " GB"));
    EXPECT_THAT(readme, testing::AnyOf(testing::HasSubstr(std::string(row.pairs) + " GB"), testing::HasSubstr(std::string(row.pairs) + " TB")));
  }
}

TEST(MemoryPlan, FastReductionKeepsEverythingEverywhere) {
  const MemoryPlan plan = state_plan(spec_of("train_teacher", 4, "fast"), kLength, 4);
  EXPECT_EQ(plan.moments, 2 * kBytes);
  EXPECT_EQ(plan.average, kBytes);
}

TEST(MemoryPlan, WhatCanNotFitIsRefusedWithTheNumbers) {
  MemoryPlan plan;
  plan.parameters = std::int64_t{1} << 50;
  try {
    require_memory(plan, 2);
    FAIL() << "a pebibyte was found";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kConflict);
    EXPECT_THAT(error.what(), testing::HasSubstr("2251799813685248 bytes of networks"));
    EXPECT_THAT(error.what(), testing::HasSubstr("2 ranks"));
  }
  require_memory(state_plan(spec_of("distill", 1), 1024, 1), 1);
}

TEST(MemoryPlan, TheMachineHasSomeMemory) {
  EXPECT_GT(available_memory(), 0);
  EXPECT_GT(peak_resident_bytes(), 0);
}

}  // namespace
}  // namespace onestep
