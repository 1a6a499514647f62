// The device's updater on several ranks (here MPI's, and the processor), run whole under mpirun: the same bits as on one.
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "common/hash.h"
#include "worker/comm/mpi_communicator.h"
#include "worker/comm/single_communicator.h"
#include "worker/run/device_updater.h"
#include "worker/tensors/torch.h"

namespace onestep {
namespace {

constexpr std::int64_t kMicroBatches = 8;

MpiSession* session = nullptr;

struct OneLayer : torch::nn::Module {
  OneLayer() {
    torch::manual_seed(1);
    register_parameter("weight", torch::randn({50, 70}));
    register_parameter("bias", torch::randn({70}));
  }
};

torch::Tensor gradient_of(int step, std::int64_t micro_batch, std::int64_t length) {
  torch::manual_seed(static_cast<std::uint64_t>(1000 * step + micro_batch));
  return torch::randn({length});
}

struct Outcome {
  torch::Tensor values, shadow, average;
  std::vector<double> norms;
};

Outcome train(TensorCommunicator& communicator, const std::string& reduction) {
  at::set_num_threads(1);
  OneLayer module;
  FlatParameters network(module, kMicroBatches, true, {torch::kCPU, torch::kBFloat16});
  OptimizerSpec optimizer;
  optimizer.clip_norm = 1;
  optimizer.weight_decay = 0.01;
  DeviceUpdater updater(network, communicator, kMicroBatches, reduction, optimizer, {{100}, 8});
  const std::int64_t each = kMicroBatches / communicator.size(), first = communicator.rank() * each;
  Outcome outcome;
  for (int step = 0; step < 3; ++step) {
    updater.begin({optimizer.learning_rate, step + 1, step});
    for (std::int64_t m = first; m < first + each; ++m) {
      network.gradient().copy_(gradient_of(step, m, network.length()));
      updater.add_micro_batch();
    }
    outcome.norms.push_back(updater.step().gradient_norm);
  }
  outcome.values = network.values();
  outcome.shadow = network.shadow();
  outcome.average = torch::zeros_like(network.values());
  outcome.average.narrow(0, updater.piece().offset, updater.piece().length).copy_(updater.average(0));
  if (reduction == "exact") communicator.all_gather_pieces({outcome.average.data_ptr<float>(), static_cast<std::size_t>(network.length())});
  return outcome;
}

TEST(DeviceRanks, TheSameBitsAsOneRank) {
  MpiCommunicator ranks(*session);
  SingleCommunicator alone;
  const Outcome found = train(ranks, "exact"), expected = train(alone, "exact");
  EXPECT_TRUE(torch::equal(found.values, expected.values));
  EXPECT_TRUE(torch::equal(found.shadow, expected.shadow));
  EXPECT_TRUE(torch::equal(found.average, expected.average));
  EXPECT_EQ(found.norms, expected.norms);
}

TEST(DeviceRanks, TheFastReductionIsTheSameUpToRounding) {
  MpiCommunicator ranks(*session);
  SingleCommunicator alone;
  const Outcome found = train(ranks, "fast"), expected = train(alone, "exact");
  EXPECT_LT(((found.values - expected.values).norm() / expected.values.norm()).item<double>(), 1e-6);
}

}  // namespace
}  // namespace onestep

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  onestep::MpiSession running;
  onestep::session = &running;
  const int failed = RUN_ALL_TESTS();
  // A rank whose checks failed must fail the run, whatever the others found.
  if (failed != 0) onestep::abort_mpi(1);
  return failed;
}
