// Ten iterations with each option of DMD2, and with all of them, against a PyTorch twin (tools/golden/make_dmd2_golden.py): losses and
// final weights. Cut into two micro-batches here, whole there.
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <vector>

#include "support/golden.h"
#include "worker/comm/single_communicator.h"
#include "worker/dmd/dmd_step.h"
#include "worker/models/discriminator_head.h"
#include "worker/models/model_factory.h"
#include "worker/run/network_updater.h"
#include "worker/tensors/keyed_random.h"

namespace onestep {
namespace {

using nlohmann::json;

constexpr std::int64_t kMicroBatches = 2, kIterations = 10;
constexpr std::uint64_t kGeneratorWeights = 11, kRealWeights = 12, kFakeWeights = 13;

// The recipe's fill().
void fill_keyed(torch::nn::Module& network, std::uint64_t seed) {
  const torch::NoGradGuard no_grad;
  for (auto& item : network.named_parameters()) {
    torch::Tensor& parameter = item.value();
    const bool vector = parameter.dim() == 1, weight = item.key().ends_with("weight");
    const double fan_in = static_cast<double>(parameter.numel()) / static_cast<double>(parameter.size(0));
    fill_keyed_uniform(parameter, seed, item.key(), !vector ? std::sqrt(3 / fan_in) : weight ? 0.5 : 0.1);
    if (vector && weight) parameter.add_(1);
  }
}

torch::Tensor joined_parameters(const torch::nn::Module& network) {
  std::map<std::string, torch::Tensor> sorted;
  for (const auto& item : network.named_parameters()) sorted[item.key()] = item.value().detach().flatten();
  std::vector<torch::Tensor> all;
  for (const auto& [name, values] : sorted) all.push_back(values);
  return torch::cat(all);
}

class Dmd2Steps : public testing::TestWithParam<const char*> {
 protected:
  const SafetensorsFile golden_{ONESTEP_SOURCE_DIR "/tests/golden/dmd2_steps.safetensors"};
  const json job_ = json::parse(golden_.metadata().at("cases")).at(GetParam());
  const NetworkSpec network_ = network_spec_from_json(json::parse(golden_.metadata().at("config")), golden_.path());

  [[nodiscard]] DmdSettings settings() const {
    DmdSettings settings;
    settings.seed = job_.at("seed");
    settings.t_G = job_.at("t_G").get<std::vector<double>>();
    settings.global_batch = job_.at("batch");
    settings.global_pairs = job_.at("pairs");
    settings.lambda_reg = job_.at("lambda_reg");
    settings.score = settings.fake = {job_.at("score").at(0), job_.at("score").at(1)};
    settings.fake_updates_per_generator_update = job_.at("every");
    settings.regression_joins_dm = job_.at("joins");
    settings.lambda_gan = job_.at("lambda_gan");
    settings.lambda_discriminator = job_.at("lambda_discriminator");
    settings.gan = {job_.at("gan_range").at(0), job_.at("gan_range").at(1)};
    return settings;
  }

  [[nodiscard]] OptimizerSpec optimizer() const {
    OptimizerSpec optimizer;
    optimizer.learning_rate = job_.at("learning_rate");
    optimizer.beta1 = 0;
    optimizer.beta2 = job_.at("beta2");
    optimizer.epsilon = job_.at("epsilon");
    optimizer.clip_norm = job_.at("clip_norm");
    return optimizer;
  }

  // Pairs and real images are keyed draws of the iteration, as in the recipe.
  [[nodiscard]] std::vector<MicroBatch> micro_batches(const DmdSettings& settings, std::uint32_t step) const {
    const auto drawn = [&](RandomStream stream, std::int64_t first, std::int64_t count) {
      return keyed_normal({settings.seed, stream, step}, first, count, {network_.image_channels, network_.image_size, network_.image_size});
    };
    const std::int64_t samples = settings.global_batch / kMicroBatches, pairs = settings.global_pairs / kMicroBatches;
    std::vector<MicroBatch> batches;
    for (std::int64_t m = 0; m < kMicroBatches; ++m) {
      MicroBatch& batch = batches.emplace_back();
      batch.first_sample = m * samples;
      batch.num_samples = samples;
      batch.first_pair = m * pairs;
      if (pairs > 0) {
        batch.pair_noise = drawn(RandomStream::kPairNoise, batch.first_pair, pairs);
        batch.pair_image = 0.5 * drawn(RandomStream::kPairNoise, settings.global_pairs + batch.first_pair, pairs);
        batch.pair_label = torch::arange(batch.first_pair, batch.first_pair + pairs).remainder(network_.label_dim);
      }
      if (job_.at("gan")) {
        batch.real_image = 0.5 * drawn(RandomStream::kTrainNoise, batch.first_sample, samples);
        batch.real_label = 2 - torch::arange(batch.first_sample, batch.first_sample + samples).remainder(network_.label_dim);
      }
    }
    return batches;
  }
};

struct Trained {
  torch::Tensor losses;           // [iterations, 6] fp64
  torch::Tensor generator, fake;  // all parameters
};

class Dmd2Run : public Dmd2Steps {
 protected:
  [[nodiscard]] Trained train(bool recompute) const {
    const auto generator = make_denoiser(network_, 0), real = make_denoiser(network_, 0), fake = make_denoiser(network_, 0);
    std::unique_ptr<BottleneckDiscriminator> discriminator;
    if (job_.at("gan")) discriminator = std::make_unique<BottleneckDiscriminator>(*fake, 0);
    fill_keyed(generator->module(), kGeneratorWeights);
    fill_keyed(real->module(), kRealWeights);
    fill_keyed(fake->module(), kFakeWeights);
    generator->recompute_in_backward(recompute);
    fake->recompute_in_backward(recompute);
    FlatParameters generator_flat(generator->module(), kMicroBatches, true), real_flat(real->module(), 1, false),
        fake_flat(fake->module(), kMicroBatches, true);
    SingleCommunicator alone;
    NetworkUpdater update_generator("generator", generator_flat, alone, kMicroBatches, "exact", {});
    NetworkUpdater update_fake("fake", fake_flat, alone, kMicroBatches, "exact", {});
    update_generator.restart(optimizer(), kIterations);
    update_fake.restart(optimizer(), kIterations);

    const DmdSettings settings = this->settings();
    const DmdNetworks networks{*generator, *real, *fake, discriminator.get()};
    Trained trained{torch::zeros({kIterations, 6}, torch::kFloat64), {}, {}};
    for (std::uint32_t step = 0; step < kIterations; ++step) {
      const DmdReport report =
          dmd_step(networks, settings, step, micro_batches(settings, step), L2Distance(), update_generator, update_fake);
      for (const DmdSums& sums : report.micro_batches) {
        const std::vector<double> losses = {sums.loss_dm,  sums.loss_reg,           sums.loss_fake,
                                            sums.loss_gan, sums.loss_discriminator, sums.discriminator_accuracy};
        trained.losses[step] += torch::tensor(losses, torch::kFloat64);
      }
    }
    trained.generator = joined_parameters(generator->module());
    trained.fake = joined_parameters(fake->module());
    return trained;
  }
};

TEST_P(Dmd2Run, LossesAndWeightsAreTheTwins) {
  const Trained trained = train(/*recompute=*/false);
  // The recipe prints 1e-7 between fp32 and fp64; the fused norm and the cut into micro-batches round in other places.
  constexpr double kTolerance = 2e-6;
  const std::string name = GetParam();
  const auto expected = golden_tensor(golden_, name + ".losses");
  for (std::int64_t step = 0; step < kIterations; ++step) {
    EXPECT_LE(relative_error(trained.losses[step], expected[step]), kTolerance) << step << ": " << trained.losses[step] << expected[step];
  }
  EXPECT_LE(relative_error(trained.generator, golden_tensor(golden_, name + ".generator")), kTolerance);
  EXPECT_LE(relative_error(trained.fake, golden_tensor(golden_, name + ".fake")), kTolerance);
}

// Activation checkpointing leaves the bits, also where the frozen trunk passes gradients on and where three losses meet in it.
TEST_P(Dmd2Run, RecomputingIsTheSameBits) {
  const Trained plain = train(/*recompute=*/false), recomputed = train(/*recompute=*/true);
  EXPECT_TRUE(torch::equal(plain.losses, recomputed.losses));
  EXPECT_TRUE(torch::equal(plain.generator, recomputed.generator));
  EXPECT_TRUE(torch::equal(plain.fake, recomputed.fake));
}

INSTANTIATE_TEST_SUITE_P(Options, Dmd2Run, testing::Values("two_time_scales", "joined", "two_steps", "gan", "all"));

}  // namespace
}  // namespace onestep
