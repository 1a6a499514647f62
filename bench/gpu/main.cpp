// Measures Onestep on a device; bench/gpu/drive.py runs it beside its PyTorch twin.
//
//   onestep-bench-gpu --list
//   onestep-bench-gpu CASE [--inputs FILE] [--seconds 10] [--device cuda]     prints one JSON object
//
// Links neither MPI nor HDF5. onestep-bench-device-cpu is the same on the processor, for tests of the harness: with --small alone it ends in time.
#include <ATen/Parallel.h>

#include <CLI/CLI.hpp>
#include <iostream>

#include "cases.h"
#include "common/build_info.h"
#include "common/error.h"
#include "run_main.h"
#include "worker/tensors/device_part.h"
#include "worker/tensors/heap.h"

namespace onestep {

std::vector<std::string> case_names() {
  return {"kernels",         "optimizer",          "sample-cifar10", "sample-imagenet64", "heun-cifar10", "heun-imagenet64", "inception",
          "cifar10-b56",     "cifar10-b256",       "cifar10-lpips",  "imagenet64-b48"};
}

nlohmann::json run_case(const BenchOptions& options) {
  const auto starts = [&](const char* start) { return options.name.starts_with(start); };
  if (options.name == "kernels") return run_kernels(options);
  if (options.name == "optimizer") return run_optimizer(options);
  if (options.name == "inception") return run_inception(options);
  if (starts("sample-") || starts("heun-")) return run_sampling(options);
  return run_training(options);
}

namespace {

int bench_main(int argc, char** argv) {
  BenchOptions options;
  std::string device = "cuda";
  bool list = false;
  CLI::App app("Measures Onestep on a device.", "onestep-bench-gpu");
  app.add_flag("--list", list, "print the names of the cases");
  app.add_option("case", options.name)->check(CLI::IsMember(case_names()));
  app.add_option("--device", device, "cuda, or cpu")->check(CLI::IsMember({"cuda", "cpu"}));
  app.add_option("--inputs", options.inputs, "write weights and inputs there for the twin");
  app.add_option("--seconds", options.seconds)->check(CLI::Range(0.0, 300.0));
  app.add_flag("--small", options.small, "the case's stand-in of a few thousand parameters");
  CLI11_PARSE(app, argc, argv);
  if (list || options.name.empty()) {
    for (const std::string& name : case_names()) std::cout << name << "\n";
    return 0;
  }
  nlohmann::json result;
  install_device_kernels();
  if (device == "cpu") {
    keep_freed_memory();
    at::set_num_threads(1);
    options.device = torch::kCPU;
    result["device"] = "cpu";
  } else {
    result["device"] = device_description(0);
    prepare_device(0, options.benchmark_convolutions);
    options.device = torch::Device(torch::kCUDA, 0);
  }
  result.update(run_case(options));
  result["case"] = options.name;
  result["small"] = options.small;
  result["commit"] = build_commit();
  result["peak_bytes"] = peak_device_bytes();
  std::cout << result.dump() << std::endl;
  return 0;
}

}  // namespace
}  // namespace onestep

int main(int argc, char** argv) { return onestep::run_main("onestep-bench-gpu", onestep::bench_main, argc, argv); }
