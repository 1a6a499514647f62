#include "worker/optim/device_update.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>

#include "common/error.h"
#include "worker/optim/clip.h"
#include "worker/optim/ema.h"

namespace onestep {
namespace {

constexpr std::int64_t kLength = 8 * 3 * 1024;

struct State {
  torch::Tensor parameters = torch::randn({kLength}), exp_avg = torch::randn({kLength}) * 1e-2, exp_avg_sq = torch::rand({kLength}) * 1e-4;
  torch::Tensor slow_average = torch::randn({kLength}), fast_average = torch::randn({kLength});
  [[nodiscard]] State clone() const { return {parameters.clone(), exp_avg.clone(), exp_avg_sq.clone(), slow_average.clone(), fast_average.clone()}; }
};

std::span<float> span_of(const torch::Tensor& tensor) { return {tensor.data_ptr<float>(), static_cast<std::size_t>(tensor.numel())}; }

AdamwOptions options() {
  AdamwOptions options;
  options.learning_rate = 3e-3;
  options.weight_decay = 0.01;
  return options;
}

DeviceUpdateBuffers buffers_of(const State& state, const torch::Tensor& shadow) {
  return {state.parameters, state.exp_avg, state.exp_avg_sq, {state.slow_average, state.fast_average}, shadow};
}

double tree(std::vector<double> leaves) {
  for (; leaves.size() > 1; leaves.resize(leaves.size() / 2)) {
    for (std::size_t i = 0; i < leaves.size() / 2; ++i) leaves[i] = leaves[2 * i] + leaves[2 * i + 1];
  }
  return leaves.front();
}

// Three updates, clipped and not, against optim's own loops: the same bits.
TEST(DeviceUpdate, EqualsTheProcessorsLoopsBitForBit) {
  torch::manual_seed(1);
  const State device, host = device.clone();
  const auto shadow = torch::zeros({kLength}, torch::kBFloat16);
  for (const std::int64_t leaves : {1, 8}) {
    for (const double max_norm : {0.0, 1.0, 1e6}) {
      DeviceUpdate update(buffers_of(device, shadow), {0, leaves, leaves}, max_norm);
      for (std::int64_t step = 1; step <= 3; ++step) {
        const auto gradient = torch::randn({kLength});
        const std::array<double, 2> decays = {0.999, ema_decay(64, 2000, step)};
        update.set_constants(options(), step, decays);
        update.step(gradient);

        const double norm = std::sqrt(tree(leaf_square_sums(span_of(gradient), leaves)));
        AdamwOptions clipped = options();
        clipped.gradient_scale = clip_scale(norm, max_norm);
        flat_adamw(span_of(host.parameters), span_of(gradient), span_of(host.exp_avg), span_of(host.exp_avg_sq), clipped, step);
        ema_lerp(span_of(host.slow_average), span_of(host.parameters), decays[0]);
        ema_lerp(span_of(host.fast_average), span_of(host.parameters), decays[1]);
        EXPECT_EQ(update.decision()[0].item<double>(), norm);
        EXPECT_EQ(update.decision()[1].item<double>(), clipped.gradient_scale);
        EXPECT_EQ(update.decision()[2].item<double>(), 1);
      }
    }
  }
  EXPECT_TRUE(torch::equal(device.parameters, host.parameters));
  EXPECT_TRUE(torch::equal(device.exp_avg, host.exp_avg));
  EXPECT_TRUE(torch::equal(device.exp_avg_sq, host.exp_avg_sq));
  EXPECT_TRUE(torch::equal(device.slow_average, host.slow_average));
  EXPECT_TRUE(torch::equal(device.fast_average, host.fast_average));
  EXPECT_TRUE(torch::equal(shadow, host.parameters.to(torch::kBFloat16)));
}

TEST(DeviceUpdate, ANormThatIsNotFiniteChangesNothing) {
  torch::manual_seed(2);
  const State state, before = state.clone();
  DeviceUpdate update(buffers_of(state, {}), {}, 10);
  const std::array<double, 2> decays = {0.9, 0.9};
  update.set_constants(options(), 1, decays);
  for (const float bad : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    auto gradient = torch::randn({kLength});
    gradient[5000] = bad;
    update.step(gradient);
    EXPECT_EQ(update.decision()[2].item<double>(), 0);
  }
  EXPECT_TRUE(torch::equal(state.parameters, before.parameters));
  EXPECT_TRUE(torch::equal(state.exp_avg_sq, before.exp_avg_sq));
  EXPECT_TRUE(torch::equal(state.slow_average, before.slow_average));
}

TEST(DeviceUpdate, RefusesBuffersThatDoNotFit) {
  const State state;
  EXPECT_THROW(DeviceUpdate(buffers_of(state, {}), {0, 7, 7}, 0), Error);
  EXPECT_THROW(DeviceUpdate(buffers_of(state, torch::zeros({8}, torch::kBFloat16)), {}, 0), Error);
  DeviceUpdate update(buffers_of(state, {}), {}, 0);
  EXPECT_THROW(update.set_constants(options(), 1, {}), Error);
}

}  // namespace
}  // namespace onestep
