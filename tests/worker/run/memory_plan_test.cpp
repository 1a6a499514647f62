#include "worker/run/memory_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "common/error.h"
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
