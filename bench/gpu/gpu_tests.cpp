// Checks on a device what the unit tests check of its twins on the processor: one line a check, exit status 0 when all hold, 1 when one does not, 3 without a
// device. Every kernel must give the bits of its twin; networks, whose convolutions are cuDNN's, must agree within bfloat16's rounding.
#include <cmath>
#include <functional>
#include <iostream>
#include <set>

#include "common/error.h"
#include "run_main.h"
#include "worker/comm/nccl_communicator.h"
#include "worker/comm/single_communicator.h"
#include "worker/dmd/dmd_step.h"
#include "worker/models/model_factory.h"
#include "worker/models/preconditioners.h"
#include "worker/optim/device_update.h"
#include "worker/run/device_updater.h"
#include "worker/tensors/device_part.h"
#include "worker/tensors/grid_op_cases.h"
#include "worker/tensors/image_ops.h"

namespace onestep {
namespace {

const torch::Device kDevice(torch::kCUDA, 0);

class Checks {
 public:
  void expect(const std::string& name, bool holds, const std::string& found = "") {
    std::cout << (holds ? "ok    " : "FAILED") << "  " << name << (found.empty() ? "" : ": " + found) << std::endl;
    ++num_checks_;
    num_failed_ += holds ? 0 : 1;
  }
  void same_bits(const std::string& name, const Tensors& device, const Tensors& host) {
    std::string found;
    for (std::size_t i = 0; i < host.size(); ++i) {
      const auto there = device[i].cpu();
      if (torch::equal(there, host[i])) continue;
      found += (found.empty() ? "" : "; ") + std::string("result ") + std::to_string(i) + " differs by " + std::to_string(relative_error(there, host[i])) +
               " in " + std::to_string((there != host[i]).sum().item<std::int64_t>()) + " of " + std::to_string(host[i].numel());
    }
    expect(name, found.empty() && device.size() == host.size(), found);
  }
  void within(const std::string& name, double found, double bound) {
    expect(name, found < bound, std::to_string(found) + " of " + std::to_string(bound));  // NaN fails
  }
  [[nodiscard]] int status() const {
    std::cout << num_checks_ - num_failed_ << " of " << num_checks_ << " checks hold" << std::endl;
    return num_failed_ == 0 ? 0 : 1;
  }

 private:
  int num_checks_ = 0, num_failed_ = 0;
};

void check_operations(Checks& checks) {
  for (const GridOpCase& item : grid_op_cases()) {
    for (const auto dtype : {torch::kFloat32, torch::kBFloat16}) {
      GridOpCase rounded = item;
      for (torch::Tensor& input : rounded.inputs) input = input.to(dtype).to(torch::kFloat32);
      const auto name = item.name + (dtype == torch::kFloat32 ? ", fp32" : ", bfloat16");
      checks.same_bits(name, run_grid_op(rounded, item.fast, dtype, kDevice), run_grid_op(rounded, item.fast, dtype, torch::kCPU));
    }
  }
}

void check_pictures(Checks& checks) {
  torch::manual_seed(1);
  const auto x = torch::randn({5, 3, 32, 32}), real = torch::randn({5, 3, 32, 32}), fake = torch::randn({5, 3, 32, 32}), c = torch::rand({5}), s = torch::rand({5});
  x[2].copy_(real[2]);
  const auto F = torch::randn({5, 3, 32, 32}).to(torch::kBFloat16);
  const auto run = [&](const torch::Device& device) {
    const DrawKey key{42, RandomStream::kScoreNoise, 0, torch::tensor({7}, torch::kInt64).to(device)};
    const auto [gradient, figures] = dm_gradient(x.to(device), real.to(device), fake.to(device));
    return Tensors{gradient, figures, scale_samples(x.to(device), c.to(device), torch::kBFloat16), scale_samples(x.to(device), c.to(device), torch::kFloat32),
                   combine_samples(x.to(device), F.to(device), c.to(device), s.to(device)), keyed_normal(key, 5, 7, {3, 13, 11}), keyed_normal(key, 5, 7, {10}),
                   keyed_uniform(key, 5, 1000), keyed_integer(key, 5, 1000, 10), diffuse_keyed(key, 9, x.to(device), c.to(device), s.to(device))};
  };
  checks.same_bits("preconditioning, draws, diffusion, distribution matching gradient", run(kDevice), run(torch::kCPU));
}

void check_update(Checks& checks) {
  const auto run = [](const torch::Device& device) {
    torch::manual_seed(2);
    const std::int64_t count = 300 * 1024;
    const auto values = torch::randn({count}).to(device), average = torch::randn({count}).to(device);
    const auto exp_avg = torch::zeros_like(values), exp_avg_sq = torch::zeros_like(values), shadow = torch::zeros_like(values, torch::kBFloat16);
    DeviceUpdate update({values, exp_avg, exp_avg_sq, {average}, shadow}, {0, 4, 4}, 1.0);
    AdamwOptions options;
    options.weight_decay = 0.01;
    const std::vector<double> decays = {0.99};
    for (std::int64_t step = 1; step <= 3; ++step) {
      update.set_constants(options, step, decays);
      update.step(torch::randn({count}).to(device));
    }
    return Tensors{values, exp_avg, exp_avg_sq, average, shadow, update.decision()};
  };
  checks.same_bits("AdamW, clipping, average, shadow", run(kDevice), run(torch::kCPU));
}

std::unique_ptr<Denoiser> small_network(const char* network_class, bool residual) {
  NetworkSpec spec;
  spec.network_class = network_class;
  spec.image_size = 16;
  spec.image_channels = 3;
  spec.pixel_unshuffle = 1;
  spec.model_channels = 32;
  spec.channel_mult = {1, 2};
  spec.num_blocks = 1;
  spec.attention_resolutions = {8};
  if (residual) {
    spec.encoder_type = "residual";
    spec.embedding_type = "fourier";
    spec.resample_filter = {1, 3, 3, 1};
  }
  auto denoiser = make_denoiser(spec, 3);
  torch::manual_seed(4);
  const torch::NoGradGuard no_grad;
  for (auto& parameter : denoiser->module().parameters()) parameter.add_(0.1 * torch::randn(parameter.sizes()));
  dynamic_cast<Preconditioner&>(*denoiser).use_grid_kernels(true);
  return denoiser;
}

// Three iterations; the last ones recorded and replayed where asked for.
Tensors train(TensorCommunicator& communicator, const torch::Device& device, torch::ScalarType dtype, const char* network_class, bool residual, std::int64_t micro_batches, int recorded_iterations) {
  const auto generator = small_network(network_class, residual), real = small_network(network_class, residual), fake = small_network(network_class, residual);
  FlatParameters generator_buffers(generator->module(), micro_batches, true, {device, dtype}), fake_buffers(fake->module(), micro_batches, true, {device, dtype});
  const FlatParameters real_buffers(real->module(), 1, false, {device, dtype});
  OptimizerSpec optimizer;
  optimizer.learning_rate = 0.1;
  optimizer.epsilon = 1;  // an update that is smooth in the gradient: rounding stays rounding
  optimizer.clip_norm = 0.5;
  DeviceUpdater update_generator(generator_buffers, communicator, micro_batches, "exact", optimizer, {{100}, 8}), update_fake(fake_buffers, communicator, micro_batches, "exact", optimizer, {});
  DmdSettings settings;
  settings.global_batch = settings.global_pairs = 8;
  settings.device_step = torch::zeros({1}, torch::TensorOptions(torch::kInt64).device(device));
  settings.device_lambda = torch::tensor({1.0f, 0.25f}).to(device);
  torch::manual_seed(5);
  const auto noise = torch::randn({8, 3, 16, 16}).to(device), image = torch::randn({8, 3, 16, 16}).to(device);
  const auto label = torch::arange(8).to(device);
  std::vector<MicroBatch> batches;
  for (std::int64_t m = 0, each = 8 / micro_batches; m < micro_batches; ++m) {
    MicroBatch& batch = batches.emplace_back();
    batch.first_sample = m * each;
    batch.num_samples = each;
    batch.pair_noise = noise.narrow(0, m * each, each);
    batch.pair_image = image.narrow(0, m * each, each);
    batch.pair_label = label.narrow(0, m * each, each);
  }
  DmdReport report;
  const auto work = [&] {
    report = dmd_step({*generator, *real, *fake}, settings, 0, batches, L2Distance(), update_generator, update_fake);
    settings.device_step.add_(1);
  };
  std::int64_t num_updates = 0;
  const auto begin = [&] {
    ++num_updates;
    update_generator.begin({optimizer.learning_rate, num_updates, num_updates - 1});
    update_fake.begin({optimizer.learning_rate, num_updates, 0});
  };
  constexpr int kIterations = 4;
  for (int i = 0; i < kIterations - recorded_iterations; ++i) begin(), work();
  if (recorded_iterations > 0) {
    const auto recorded = record(work);
    for (int i = 0; i < recorded_iterations; ++i) begin(), recorded->run();
    synchronize_device();
  }
  std::vector<double> figures = {report.generator.gradient_norm, report.fake.gradient_norm};
  for (const DmdSums& sums : report.micro_batches) figures.insert(figures.end(), {sums.loss_dm, sums.loss_reg, sums.loss_fake, sums.gradient_abs});
  return {generator_buffers.values().cpu(), fake_buffers.values().cpu(), update_generator.average(0).cpu(), torch::tensor(figures, torch::kFloat64)};
}

void check_training(Checks& checks) {
  SingleCommunicator alone;
  for (const auto& [network_class, residual] : {std::pair{"song_unet", false}, std::pair{"song_unet", true}, std::pair{"adm_unet", false}}) {
    const std::string name = std::string(network_class) + (residual ? ", residual" : "");
    const Tensors eager = train(alone, kDevice, torch::kBFloat16, network_class, residual, 2, 0);
    checks.same_bits(name + ": four iterations twice", train(alone, kDevice, torch::kBFloat16, network_class, residual, 2, 0), eager);
    checks.same_bits(name + ": recorded and replayed", train(alone, kDevice, torch::kBFloat16, network_class, residual, 2, 2), eager);
    const Tensors start = {train(alone, torch::kCPU, torch::kFloat32, network_class, residual, 2, 0)};
    const auto single = train(alone, kDevice, torch::kFloat32, network_class, residual, 2, 0);
    checks.within(name + ": fp32 against the processor, parameters", relative_error(single[0], start[0]), 1e-4);
    checks.within(name + ": fp32 against the processor, figures", relative_error(single[3], start[3]), 1e-3);
    checks.within(name + ": bfloat16 against the processor's fp32, parameters", relative_error(eager[0], start[0]), 2e-2);
    checks.within(name + ": bfloat16 against the processor's fp32, figures", relative_error(eager[3], start[3]), 5e-2);
  }
}

// One rank alone: what it sends comes back to it.
void check_nccl(Checks& checks) {
  NcclCommunicator communicator(make_nccl_id(), 0, 1, {std::chrono::seconds(60), std::chrono::seconds(60)});
  torch::manual_seed(6);
  const std::int64_t length = 8 * 1024;
  const auto start = torch::randn({length}).to(kDevice), buffer = start.clone();
  const auto span = [&](const torch::Tensor& t) { return std::span<float>(t.data_ptr<float>(), static_cast<std::size_t>(t.numel())); };
  communicator.reduce_scatter_tree(span(buffer));
  communicator.all_gather_pieces(span(buffer));
  communicator.all_reduce_fast(span(buffer));
  checks.same_bits("NCCL: one rank's sum is its own", {buffer}, {start.cpu()});
  const auto other = torch::randn({length}).to(kDevice);
  communicator.swap_and_add(0, other.data_ptr<float>(), buffer.data_ptr<float>(), static_cast<std::size_t>(length));
  checks.same_bits("NCCL: send, receive and add", {buffer}, {start.cpu() + other.cpu()});
  const auto work = [&] {
    communicator.swap_and_add(0, other.data_ptr<float>(), buffer.data_ptr<float>(), static_cast<std::size_t>(length));
    communicator.all_reduce_fast(span(buffer));
  };
  const auto recorded = record(work);
  recorded->run();
  communicator.watch("a replay");
  synchronize_device();
  communicator.check();
  checks.same_bits("NCCL: recorded and replayed", {buffer}, {start.cpu() + other.cpu() + other.cpu()});
  const Tensors by_nccl = train(communicator, kDevice, torch::kBFloat16, "song_unet", false, 2, 2);
  SingleCommunicator alone;
  checks.same_bits("NCCL: training by its communicator", by_nccl, train(alone, kDevice, torch::kBFloat16, "song_unet", false, 2, 2));
  try {
    NcclCommunicator missing(make_nccl_id(), 0, 2, {std::chrono::seconds(2), std::chrono::seconds(2)});
    checks.expect("NCCL: a rank that does not arrive", false, "no error");
  } catch (const Error& error) {
    checks.expect("NCCL: a rank that does not arrive", std::string(error.what()).find("has not arrived after 2 s") != std::string::npos, error.what());
  }
}

int gpu_tests_main(int /*argc*/, char** /*argv*/) {
  install_device_kernels();
  std::cout << device_description(0) << std::endl;
  prepare_device(0, /*benchmark_convolutions=*/false);
  Checks checks;
  check_operations(checks);
  check_pictures(checks);
  check_update(checks);
  check_training(checks);
  check_nccl(checks);
  return checks.status();
}

}  // namespace
}  // namespace onestep

int main(int argc, char** argv) { return onestep::run_main("onestep-gpu-tests", onestep::gpu_tests_main, argc, argv); }
