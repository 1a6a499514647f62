#include "worker/run/distill_schedule.h"

#include <gtest/gtest.h>

#include "worker/models/sd_denoiser.h"
#include "worker/run/parametrisation.h"

namespace onestep {
namespace {

DistillSpec staged_spec() {
  DistillSpec spec;
  spec.prompts = "p";
  spec.dmd.schedule = {{.from_iteration = 10, .lambda_reg = 0.5, .t_hi = 0.98, .decoder = ""},
                       {.from_iteration = 20, .lambda_reg = 1.0, .t_hi = 0.5, .decoder = ""}};
  return spec;
}

TEST(DistillSchedule, AStageHoldsFromItsIterationOn) {
  const auto schedule = staged_spec().dmd.schedule;
  EXPECT_EQ(stage_index(schedule, -5), std::nullopt);
  EXPECT_EQ(stage_index(schedule, 9), std::nullopt);
  EXPECT_EQ(stage_index(schedule, 10), 0u);
  EXPECT_EQ(stage_index(schedule, 19), 0u);
  EXPECT_EQ(stage_index(schedule, 20), 1u);
  EXPECT_EQ(stage_index(schedule, 1'000'000), 1u);
  EXPECT_EQ(stage_index({}, 0), std::nullopt);
}

TEST(DistillSchedule, TheLargestTBoundsTheScoresNoise) {
  SdUnetConfig unet;
  unet.block_out_channels = {8, 8};
  unet.num_heads = {1, 1};
  unet.down_attention = unet.up_attention = {false, false};
  unet.layers_per_block = 1;
  unet.cross_attention_dim = 4;
  unet.norm_num_groups = 4;
  const SdDenoiser denoiser(unet, {});
  const auto& schedule = dynamic_cast<const DiscreteSchedule&>(denoiser.schedule());
  const DistillSpec spec = staged_spec();
  const NoiseRange usual = parametrisation_of(spec, denoiser).score;
  EXPECT_EQ(stage_score_range(spec, 0, denoiser).hi, usual.hi);
  EXPECT_EQ(stage_score_range(spec, 1, denoiser).hi, schedule.noise_level(500));
  EXPECT_EQ(stage_score_range(spec, 1, denoiser).lo, usual.lo);
}

TEST(DistillSchedule, WithoutDecodersAllStagesShareTheDistance) {
  DistillSpec spec = staged_spec();
  const DistillDistances distances(spec, false);
  EXPECT_EQ(&distances.at(std::nullopt), &distances.at(1));
  nlohmann::json config = {{"dmd", {{"schedule", {{{"lambda_reg", 0.5}}, {{"lambda_reg", 1.0}}}}}}};
  const nlohmann::json before = config;
  distances.name_by_content(config);
  EXPECT_EQ(config, before);
}

}  // namespace
}  // namespace onestep
