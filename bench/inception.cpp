// Inception's features of a batch of pictures, and the Fréchet distance of 2,048 dimensions, timed on one thread; bench/inception.py
// has the other sides.
//
//   inception --write FILE                       keyed weights and pictures for both sides
//   inception --time FILE --seconds 10           prints one JSON object: images_per_second, features of the first picture
//   inception --frechet FILE                     .npz of mu1, sigma1, mu2, sigma2; prints seconds and value
#include <ATen/Parallel.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cmath>
#include <cstring>
#include <iostream>
#include <nlohmann/json.hpp>

#include "common/build_info.h"
#include "common/npz_file.h"
#include "common/safetensors_file.h"
#include "run_main.h"
#include "worker/metrics/frechet.h"
#include "worker/metrics/resize.h"
#include "worker/models/inception.h"
#include "worker/models/initialize.h"
#include "worker/tensors/heap.h"
#include "worker/tensors/torch.h"

namespace onestep {
namespace {

constexpr std::uint64_t kSeed = 1;
constexpr std::int64_t kBatch = 10, kPictureSide = 64;

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Activations of order 1: He's bound for convolutions, norms near the identity.
torch::Tensor keyed_weight(const std::string& name, const std::vector<std::int64_t>& shape) {
  const double bound = shape.size() == 4 ? std::sqrt(6.0 / static_cast<double>(shape[1] * shape[2] * shape[3])) : 0.1;
  const bool is_gain = name.ends_with("bn.weight") || name.ends_with("running_var");
  torch::Tensor weight = torch::empty(shape);
  fill_keyed_uniform(weight, kSeed, name, bound);
  return is_gain ? weight + 1 : weight;
}

void write(const std::string& path) {
  std::vector<torch::Tensor> kept;
  std::vector<TensorView> views;
  const auto add = [&](const std::string& name, const torch::Tensor& tensor, DType dtype) {
    kept.push_back(tensor.contiguous());
    views.push_back({name, dtype, tensor.sizes().vec(),
                     {static_cast<const std::byte*>(kept.back().const_data_ptr()), kept.back().nbytes()}});
  };
  for (const ExpectedTensor& tensor : inception_tensors()) add(tensor.name, keyed_weight(tensor.name, tensor.shape), DType::kF32);
  torch::Tensor noise = torch::empty({kBatch, 3, kPictureSide, kPictureSide});
  fill_keyed_uniform(noise, kSeed, "pictures", 1.0);
  add("input.pictures", to_bytes(noise), DType::kU8);
  write_safetensors(path, views, {});
}

void time_features(const std::string& path, double seconds) {
  const SafetensorsFile file(path);
  std::vector<TensorView> weights;
  for (const TensorView& view : file.tensors()) {
    if (!view.name.starts_with("input.")) weights.push_back(view);
  }
  const Inception inception(weights, path);
  const TensorView& stored = file.at("input.pictures");
  torch::Tensor pictures = torch::empty(stored.shape, torch::kUInt8);
  std::memcpy(pictures.data_ptr(), stored.bytes.data(), stored.bytes.size());
  const auto run = [&] { return inception.features(inception_input(pictures, InceptionResize::kPytorchFid)); };
  const auto features = run();
  const auto start = std::chrono::steady_clock::now();
  std::int64_t batches = 0;
  for (; seconds_since(start) < seconds; ++batches) run();
  const double elapsed = seconds_since(start);
  const float* values = features.const_data_ptr<float>();
  const nlohmann::json line = {{"images_per_second", static_cast<double>(batches * kBatch) / elapsed},
                               {"features", std::vector<float>(values, values + Inception::kNumFeatures)},
                               {"num_batches", batches},
                               {"commit", build_commit()}};
  std::cout << line.dump() << std::endl;
}

torch::Tensor tensor_of(const NpyArray& array) {
  auto tensor = torch::empty(array.shape, torch::kFloat64);
  std::memcpy(tensor.data_ptr<double>(), array.values.data(), array.values.size() * sizeof(double));
  return tensor;
}

void time_frechet(const std::string& path) {
  const NpzFile file(path);
  const FeatureStats a{0, tensor_of(file.array("mu1")), tensor_of(file.array("sigma1"))};
  const FeatureStats b{0, tensor_of(file.array("mu2")), tensor_of(file.array("sigma2"))};
  const auto start = std::chrono::steady_clock::now();
  const double value = frechet_distance(a, b);
  std::cout << nlohmann::json{{"seconds", seconds_since(start)}, {"frechet", value}}.dump() << std::endl;
}

int bench_main(int argc, char** argv) {
  std::string write_path, time_path, frechet_path;
  double seconds = 10;
  CLI::App app("Inception's features and the Fréchet distance on the CPU, timed.", "inception");
  app.add_option("--write", write_path, "write weights and pictures for both sides, and end");
  app.add_option("--time", time_path, "time features on this file");
  app.add_option("--frechet", frechet_path, "time the distance of the statistics in this .npz");
  app.add_option("--seconds", seconds)->check(CLI::Range(0.1, 600.0));
  CLI11_PARSE(app, argc, argv);
  keep_freed_memory();  // as in the worker
  at::set_num_threads(1);
  if (!write_path.empty()) write(write_path);
  if (!time_path.empty()) time_features(time_path, seconds);
  if (!frechet_path.empty()) time_frechet(frechet_path);
  return 0;
}

}  // namespace
}  // namespace onestep

int main(int argc, char** argv) { return onestep::run_main("inception", onestep::bench_main, argc, argv); }
