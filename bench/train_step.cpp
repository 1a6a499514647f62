// One EDM training step as the worker runs it, timed on one thread; bench/twins/train_step_twin.py is the other side.
//
//   train_step --write FILE --batch 128          weights, inputs and options for both sides
//   train_step --time FILE --batch 128 --seconds 10   prints one JSON object: images_per_second, losses
#include <ATen/Parallel.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstring>
#include <iostream>

#include "common/build_info.h"
#include "common/error.h"
#include "common/safetensors_file.h"
#include "run_main.h"
#include "worker/comm/single_communicator.h"
#include "worker/dmd/losses.h"
#include "worker/models/preconditioners.h"
#include "worker/run/network_updater.h"
#include "worker/tensors/flat_parameters.h"
#include "worker/tensors/heap.h"
#include "worker/tensors/keyed_random.h"
#include "worker/tensors/torch.h"

namespace onestep {
namespace {

constexpr std::uint64_t kSeed = 1;
constexpr int kCheckedLosses = 10;

std::span<const std::byte> bytes_of(const torch::Tensor& tensor) {
  return {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()};
}

TensorView view_of(const std::string& name, const torch::Tensor& tensor) {
  return {name, DType::kF32, tensor.sizes().vec(), bytes_of(tensor)};
}

torch::Tensor tensor_of(const TensorView& view, std::int64_t rows) {
  auto shape = view.shape;
  if (shape.empty() || shape[0] < rows) throw Error(ErrorCode::kMismatch, view.name + ": too few rows");
  torch::Tensor tensor = torch::empty(shape);
  std::memcpy(tensor.data_ptr<float>(), view.bytes.data(), view.bytes.size());
  return tensor.narrow(0, 0, rows).contiguous();
}

// Every parameter random and nonzero, so that no gradient is trivially zero.
void write(const std::string& path, std::int64_t batch) {
  NetworkSpec spec;
  spec.attention_resolutions = {};
  EdmPrecond net(spec);
  auto parameters = net.named_parameters();
  std::int64_t sample = 0;
  for (auto& item : parameters) {
    torch::NoGradGuard no_grad;
    const std::int64_t samples[] = {sample++};
    auto values = keyed_normal({kSeed, RandomStream::kInit, 0}, samples, {item.value().numel()}).view(item.value().sizes());
    const bool is_gain = item.value().dim() == 1 && item.key().find("norm") != std::string::npos &&
                         item.key().ends_with("weight");
    item.value().copy_(is_gain ? 1 + 0.1 * values : 0.05 * values);
  }
  const auto image = keyed_normal({kSeed, RandomStream::kEvaluationNoise, 0}, 0, batch, {1, 14, 14}) * 0.5;
  const auto noise = keyed_normal({kSeed, RandomStream::kTrainNoise, 0}, 0, batch, {1, 14, 14});
  const auto sigma = (keyed_normal({kSeed, RandomStream::kTrainSigma, 0}, 0, batch, {1}).view({batch}) * 1.2).exp();
  const auto labels = torch::one_hot(torch::arange(batch).remainder(10), 10).to(torch::kFloat32);
  auto tensors = named_tensors(net);
  tensors.push_back(view_of("input.image", image));
  tensors.push_back(view_of("input.noise", noise));
  tensors.push_back(view_of("input.sigma", sigma));
  tensors.push_back(view_of("input.labels", labels));
  write_safetensors(path, tensors, {{"config", to_json(spec).dump()}});
}

void time_step(const std::string& path, std::int64_t batch, double seconds) {
  keep_freed_memory();  // as in the worker
  at::set_num_threads(1);
  const SafetensorsFile file(path);
  EdmPrecond net(network_spec_from_json(nlohmann::json::parse(file.metadata().at("config")), path));
  for (auto& item : net.named_parameters()) {
    torch::NoGradGuard no_grad;
    std::memcpy(item.value().data_ptr<float>(), file.at(item.key()).bytes.data(), file.at(item.key()).bytes.size());
  }
  const auto image = tensor_of(file.at("input.image"), batch);
  const auto sigma = tensor_of(file.at("input.sigma"), batch);
  const auto x_t = diffuse(net.schedule(), image, tensor_of(file.at("input.noise"), batch), sigma);
  const Condition condition{tensor_of(file.at("input.labels"), batch).argmax(1), {}};
  FlatParameters flat(net, 1, true);
  SingleCommunicator alone;
  NetworkUpdater updater("teacher", flat, alone, 1, "exact", {2000, batch});
  OptimizerSpec optimizer;
  optimizer.learning_rate = 2e-3;
  updater.restart(optimizer, 1'000'000);
  const auto step = [&] {
    const auto loss = denoising_loss(net.schedule(), net.denoise(x_t, sigma, condition), image, sigma, batch);
    loss.backward();
    updater.add_micro_batch();
    updater.step();
    return loss.item<double>();
  };
  nlohmann::json losses = nlohmann::json::array();
  for (int i = 0; i < kCheckedLosses; ++i) losses.push_back(step());
  const auto start = std::chrono::steady_clock::now();
  std::int64_t steps = 0;
  double elapsed = 0;
  while (elapsed < seconds) {
    step();
    ++steps;
    elapsed = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  const nlohmann::json line = {{"images_per_second", static_cast<double>(steps * batch) / elapsed},
                               {"losses", losses},
                               {"num_steps", steps},
                               {"batch", batch},
                               {"commit", build_commit()}};
  std::cout << line.dump() << std::endl;
}

int bench_main(int argc, char** argv) {
  std::string write_path, time_path;
  std::int64_t batch = 128;
  double seconds = 10;
  CLI::App app("One training step on the CPU, timed.", "train_step");
  app.add_option("--write", write_path, "write weights and inputs for both sides, and end");
  app.add_option("--time", time_path, "time steps on this file");
  app.add_option("--batch", batch)->check(CLI::Range(1, 4096));
  app.add_option("--seconds", seconds)->check(CLI::Range(0.1, 600.0));
  CLI11_PARSE(app, argc, argv);
  if (!write_path.empty()) write(write_path, batch);
  if (!time_path.empty()) time_step(time_path, batch, seconds);
  return 0;
}

}  // namespace
}  // namespace onestep

int main(int argc, char** argv) { return onestep::run_main("train_step", onestep::bench_main, argc, argv); }
