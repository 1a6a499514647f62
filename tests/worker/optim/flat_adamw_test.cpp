#include "worker/optim/flat_adamw.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>

#include "common/error.h"

namespace onestep {
namespace {

struct State {
  std::vector<float> parameters, gradient, exp_avg, exp_avg_sq;
  explicit State(std::size_t count, unsigned seed = 1) {
    std::mt19937 generator(seed);
    std::normal_distribution<float> normal;
    for (std::size_t i = 0; i < count; ++i) {
      parameters.push_back(normal(generator));
      gradient.push_back(normal(generator) * 1e-2F);
      exp_avg.push_back(normal(generator) * 1e-2F);
      exp_avg_sq.push_back(std::abs(normal(generator)) * 1e-4F);
    }
  }
};

const AdamwConstants kConstants = {.keep = 0.9999F, .rate = 3e-3F, .new1 = 0.1F, .beta2 = 0.99F, .new2 = 0.01F,
                                   .inverse_root = 2.5F, .epsilon = 1e-8F, .scale = 0.7F};

// Each operation rounded to fp32 by a store that the compiler may not see through.
float rounded(float value) {
  volatile float stored = value;
  return stored;
}

TEST(FlatAdamw, EveryVariantGivesTheBitsOfOneElementAtATime) {
  constexpr std::size_t kCount = 1000;
  State expected(kCount);
  const State start = expected;
  const AdamwConstants& c = kConstants;
  for (std::size_t i = 0; i < kCount; ++i) {
    const float g = rounded(expected.gradient[i] * c.scale);
    const float m = rounded(expected.exp_avg[i] + rounded(rounded(g - expected.exp_avg[i]) * c.new1));
    const float v = rounded(rounded(expected.exp_avg_sq[i] * c.beta2) + rounded(rounded(g * g) * c.new2));
    const float d = rounded(rounded(rounded(std::sqrt(v)) * c.inverse_root) + c.epsilon);
    expected.exp_avg[i] = m;
    expected.exp_avg_sq[i] = v;
    expected.parameters[i] = rounded(rounded(expected.parameters[i] * c.keep) - rounded(c.rate * rounded(m / d)));
  }
  const auto kernels = adamw_kernels();
  ASSERT_FALSE(kernels.empty());
  for (std::size_t k = 0; k < kernels.size(); ++k) {
    // Any start and any length: the vector body and the scalar rest fall on other elements each time.
    for (const std::size_t offset : {0, 1, 3, 8, 17}) {
      for (const std::size_t count : {1, 7, 15, 16, 33, 255, 982}) {
        State state = start;
        kernels[k](state.parameters.data() + offset, state.gradient.data() + offset, state.exp_avg.data() + offset,
                   state.exp_avg_sq.data() + offset, count, c);
        const auto same = [&](const std::vector<float>& found, const std::vector<float>& wanted) {
          return std::memcmp(found.data() + offset, wanted.data() + offset, count * sizeof(float)) == 0;
        };
        ASSERT_TRUE(same(state.parameters, expected.parameters)) << k << " " << offset << " " << count;
        ASSERT_TRUE(same(state.exp_avg, expected.exp_avg)) << k << " " << offset << " " << count;
        ASSERT_TRUE(same(state.exp_avg_sq, expected.exp_avg_sq)) << k << " " << offset << " " << count;
        ASSERT_EQ(state.parameters[offset + count], start.parameters[offset + count]) << "wrote beyond its part";
      }
    }
  }
}

TEST(FlatAdamw, PiecesGiveTheBitsOfTheWhole) {
  State whole(4096), parts(4096);
  const AdamwOptions options = {.weight_decay = 0.01, .gradient_scale = 0.3};
  for (std::int64_t step = 1; step <= 5; ++step) {
    flat_adamw(whole.parameters, whole.gradient, whole.exp_avg, whole.exp_avg_sq, options, step);
    for (std::size_t first = 0; first < 4096; first += 1024) {
      flat_adamw(std::span(parts.parameters).subspan(first, 1024), std::span(parts.gradient).subspan(first, 1024),
                 std::span(parts.exp_avg).subspan(first, 1024), std::span(parts.exp_avg_sq).subspan(first, 1024),
                 options, step);
    }
  }
  EXPECT_EQ(whole.parameters, parts.parameters);
}

TEST(FlatAdamw, FirstStepMovesByTheLearningRateAgainstTheGradient) {
  State state(1);
  state.parameters = {1.F};
  state.gradient = {-3.F};
  state.exp_avg = state.exp_avg_sq = {0.F};
  flat_adamw(state.parameters, state.gradient, state.exp_avg, state.exp_avg_sq, {.learning_rate = 0.1}, 1);
  EXPECT_NEAR(state.parameters[0], 1.1, 1e-6);  // m / sqrt(v) is the gradient's sign after bias correction
}

TEST(FlatAdamw, PaddingStaysZero) {
  State state(8);
  for (auto* values : {&state.parameters, &state.gradient, &state.exp_avg, &state.exp_avg_sq}) values->assign(8, 0.F);
  flat_adamw(state.parameters, state.gradient, state.exp_avg, state.exp_avg_sq, {.weight_decay = 0.1}, 1);
  EXPECT_THAT(state.parameters, testing::Each(0.F));
}

TEST(FlatAdamw, RefusesOtherLengthsAndStepZero) {
  State state(8);
  EXPECT_THROW(flat_adamw(state.parameters, std::span(state.gradient).first(7), state.exp_avg, state.exp_avg_sq, {}, 1), Error);
  EXPECT_THROW(flat_adamw(state.parameters, state.gradient, state.exp_avg, state.exp_avg_sq, {}, 0), Error);
}

}  // namespace
}  // namespace onestep
