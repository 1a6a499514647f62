// Training as on a device, by the kernels' twins on the CPU, against training on the CPU.
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "worker/comm/single_communicator.h"
#include "worker/dmd/dmd_step.h"
#include "worker/models/model_factory.h"
#include "worker/models/preconditioners.h"
#include "worker/run/device_loop.h"
#include "worker/run/device_updater.h"
#include "worker/run/network_updater.h"
#include "worker/tensors/keyed_random.h"

namespace onestep {
namespace {

constexpr std::int64_t kMicroBatches = 4, kBatch = 8, kPairs = 4;

OptimizerSpec optimizer_spec() {
  OptimizerSpec optimizer;
  optimizer.learning_rate = 0.1;
  optimizer.epsilon = 1;  // an update that is smooth in the gradient: rounding stays rounding
  optimizer.clip_norm = 0.5;
  optimizer.weight_decay = 0.01;
  return optimizer;
}

std::unique_ptr<Denoiser> network(bool grid) {
  at::set_num_threads(1);
  NetworkSpec spec;
  spec.image_size = 8;
  spec.pixel_unshuffle = 1;
  spec.model_channels = 8;
  spec.channels_per_head = 8;
  spec.num_blocks = 1;
  auto denoiser = make_denoiser(spec, 3);
  torch::manual_seed(1);
  const torch::NoGradGuard no_grad;
  for (auto& parameter : denoiser->module().parameters()) parameter.add_(0.1 * torch::randn(parameter.sizes()));
  dynamic_cast<Preconditioner&>(*denoiser).use_grid_kernels(grid);
  return denoiser;
}

std::vector<MicroBatch> micro_batches() {
  torch::manual_seed(2);
  const auto noise = torch::randn({kPairs, 1, 8, 8}), image = torch::randn({kPairs, 1, 8, 8});
  std::vector<MicroBatch> batches;
  for (std::int64_t m = 0; m < kMicroBatches; ++m) {
    MicroBatch& batch = batches.emplace_back();
    batch.first_sample = m * kBatch / kMicroBatches;
    batch.num_samples = kBatch / kMicroBatches;
    batch.pair_noise = noise.narrow(0, m, 1);
    batch.pair_image = image.narrow(0, m, 1);
    batch.pair_label = torch::full({1}, m, torch::kInt64);
  }
  return batches;
}

DmdSettings settings() {
  DmdSettings settings;
  settings.seed = 5;
  settings.global_batch = kBatch;
  settings.global_pairs = kPairs;
  return settings;
}

struct Result {
  torch::Tensor generator, fake, average;
  std::vector<double> figures;
};

void add_figures(Result& result, const DmdReport& report) {
  for (const DmdSums& sums : report.micro_batches) {
    for (const double figure : {double{sums.loss_dm}, double{sums.loss_reg}, double{sums.loss_fake}, double{sums.gradient_abs}, double{sums.sample_sum},
                                double{sums.sample_square_sum}, double{sums.zero_denominators}}) {
      result.figures.push_back(figure);
    }
  }
  result.figures.push_back(report.generator.gradient_norm);
  result.figures.push_back(report.fake.gradient_norm);
}

Result on_the_cpu(std::uint32_t iterations) {
  const auto generator = network(false), real = network(false), fake = network(false);
  FlatParameters generator_flat(generator->module(), kMicroBatches, true), fake_flat(fake->module(), kMicroBatches, true);
  SingleCommunicator alone;
  NetworkUpdater update_generator("generator", generator_flat, alone, kMicroBatches, "exact", {100, kBatch});
  NetworkUpdater update_fake("fake", fake_flat, alone, kMicroBatches, "exact", {});
  update_generator.restart(optimizer_spec(), 100);
  update_fake.restart(optimizer_spec(), 100);
  Result result;
  for (std::uint32_t step = 0; step < iterations; ++step) {
    add_figures(result, dmd_step({*generator, *real, *fake}, settings(), step, micro_batches(), L2Distance(), update_generator, update_fake));
  }
  result.average = update_generator.gather_average();
  result.generator = generator_flat.values();
  result.fake = fake_flat.values();
  return result;
}

Result as_on_a_device(std::uint32_t iterations, torch::ScalarType dtype) {
  const auto generator = network(true), real = network(true), fake = network(true);
  FlatParameters generator_buffers(generator->module(), kMicroBatches, true, {torch::kCPU, dtype});
  FlatParameters fake_buffers(fake->module(), kMicroBatches, true, {torch::kCPU, dtype});
  const FlatParameters real_buffers(real->module(), 1, false, {torch::kCPU, dtype});
  SingleCommunicator alone;
  DeviceUpdater update_generator(generator_buffers, alone, kMicroBatches, "exact", optimizer_spec(), {{100}, kBatch});
  DeviceUpdater update_fake(fake_buffers, alone, kMicroBatches, "exact", optimizer_spec(), {});
  DmdSettings on_device = settings();
  on_device.lambda_dm = on_device.lambda_reg = -1;  // not the ones that count
  on_device.device_step = torch::zeros({1}, torch::kInt64);
  on_device.device_lambda = torch::tensor({1.0f, 0.25f});
  Result result;
  for (std::uint32_t step = 0; step < iterations; ++step) {
    on_device.device_step.fill_(static_cast<std::int64_t>(step));
    update_generator.begin({optimizer_spec().learning_rate, step + 1, step});
    update_fake.begin({optimizer_spec().learning_rate, step + 1, 0});
    add_figures(result, dmd_step({*generator, *real, *fake}, on_device, /*step=*/999, micro_batches(), L2Distance(), update_generator, update_fake));
  }
  result.average = update_generator.average(0);
  result.generator = generator_buffers.values();
  result.fake = fake_buffers.values();
  return result;
}

double relative_distance(const torch::Tensor& a, const torch::Tensor& b) {
  return ((a - b).to(torch::kFloat64).norm() / b.to(torch::kFloat64).norm()).item<double>();
}

void expect_close(const Result& a, const Result& b, double tolerance) {
  const Result start = on_the_cpu(0);
  EXPECT_LT(relative_distance(a.generator - start.generator, b.generator - start.generator), tolerance);
  EXPECT_LT(relative_distance(a.fake - start.fake, b.fake - start.fake), tolerance);
  EXPECT_LT(relative_distance(a.average - start.average, b.average - start.average), tolerance);
  ASSERT_EQ(a.figures.size(), b.figures.size());
  for (std::size_t i = 0; i < a.figures.size(); ++i) EXPECT_NEAR(a.figures[i], b.figures[i], tolerance * (1 + std::abs(b.figures[i]))) << i;
}

// The same algorithm, draws, tree, clipping, AdamW and average; the networks' sums are in another order.
TEST(DeviceTraining, EqualsTrainingOnTheCpu) { expect_close(as_on_a_device(3, torch::kFloat32), on_the_cpu(3), 1e-3); }

// What bfloat16 adds: some per cent of a gradient.
TEST(DeviceTraining, InBfloat16WithinItsRounding) { expect_close(as_on_a_device(1, torch::kBFloat16), on_the_cpu(1), 0.1); }

// As the trainer runs it: updaters with schedules and an average, pairs that arrive anew, iterations that are recorded after some. The same bits as above.
TEST(DeviceTraining, TheLoopRecordsAndReplays) {
  constexpr std::uint32_t kIterations = 5;
  const auto generator = network(true), real = network(true), fake = network(true);
  const FlatPlacement placement{torch::kCPU, torch::kBFloat16};
  FlatParameters generator_flat(generator->module(), kMicroBatches, true, placement), fake_flat(fake->module(), kMicroBatches, true, placement);
  const FlatParameters real_flat(real->module(), 1, false, placement);
  SingleCommunicator alone;
  NetworkUpdater update_generator("generator", generator_flat, alone, kMicroBatches, "exact", {100, kBatch});
  NetworkUpdater update_fake("fake", fake_flat, alone, kMicroBatches, "exact", {});
  update_generator.restart(optimizer_spec(), 100);
  update_fake.restart(optimizer_spec(), 100);
  DeviceLoop loop(torch::kCPU, {&update_generator, &update_fake});
  const L2Distance distance;
  const DmdNetworks networks{*generator, *real, *fake};
  Result result;
  for (std::uint32_t step = 0; step < kIterations; ++step) {
    const auto& batches = loop.place(micro_batches());
    add_figures(result, loop.run([&, placed = loop.place(settings(), step)] {
      return dmd_step(networks, placed, 0, batches, distance, update_generator, update_fake);
    }));
  }
  EXPECT_TRUE(loop.is_recorded());
  const Result expected = as_on_a_device(kIterations, torch::kBFloat16);
  EXPECT_TRUE(torch::equal(generator_flat.values(), expected.generator));
  EXPECT_TRUE(torch::equal(fake_flat.values(), expected.fake));
  EXPECT_TRUE(torch::equal(update_generator.gather_average(), expected.average));
  EXPECT_EQ(result.figures, expected.figures);
  EXPECT_EQ(update_generator.counters(), (nlohmann::json{{"phase_updates", kIterations}, {"average_updates", kIterations}}));
}

TEST(DeviceTraining, TwiceTheSameBits) {
  EXPECT_TRUE(torch::equal(as_on_a_device(2, torch::kBFloat16).generator, as_on_a_device(2, torch::kBFloat16).generator));
}

// The two updaters, given the same gradients, bit for bit.
TEST(DeviceUpdater, EqualsNetworkUpdaterBitForBit) {
  const auto one = network(false), other = network(false);
  FlatParameters flat(one->module(), kMicroBatches, true);
  FlatParameters buffers(other->module(), kMicroBatches, true, {torch::kCPU, torch::kFloat32});
  SingleCommunicator alone;
  NetworkUpdater expected("x", flat, alone, kMicroBatches, "exact", {100, kBatch});
  expected.restart(optimizer_spec(), 100);
  DeviceUpdater found(buffers, alone, kMicroBatches, "exact", optimizer_spec(), {{100}, kBatch});
  torch::manual_seed(3);
  for (int step = 0; step < 3; ++step) {
    found.begin({optimizer_spec().learning_rate, step + 1, step});
    for (std::int64_t m = 0; m < kMicroBatches; ++m) {
      const auto gradient = torch::randn({flat.length()});
      flat.gradient().copy_(gradient);
      buffers.gradient().copy_(gradient);
      expected.add_micro_batch();
      found.add_micro_batch();
    }
    EXPECT_EQ(double{expected.step().gradient_norm}, double{found.step().gradient_norm});
  }
  EXPECT_TRUE(torch::equal(flat.values(), buffers.values()));
  EXPECT_TRUE(torch::equal(expected.gather_average(), found.average(0)));
}

}  // namespace
}  // namespace onestep
