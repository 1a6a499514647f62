#include "bench_network.h"
#include "cases.h"
#include "collected.h"
#include "timing.h"
#include "worker/dmd/losses.h"
#include "worker/tensors/flat_parameters.h"
#include "worker/sampling/sampler.h"
#include "worker/tensors/keyed_random.h"

namespace onestep {
namespace {

constexpr std::uint64_t kSamplingSeed = 7;
constexpr double kGeneratorSigma = 80;
constexpr int kHeunSteps = 18;

}  // namespace

nlohmann::json run_sampling(const BenchOptions& options) {
  const bool heun = options.name.starts_with("heun-"), cifar = options.name.ends_with("cifar10");
  const NetworkSpec spec = bench_spec(cifar ? "cifar10" : "imagenet64", options.small);
  const std::int64_t batch = options.small ? 4 : cifar ? (heun ? 512 : 1024) : 128;
  const auto denoiser = bench_network(spec);
  dynamic_cast<Preconditioner&>(*denoiser).use_grid_kernels(true);
  const FlatParameters buffers(denoiser->module(), 1, false, {options.device, torch::kBFloat16});
  const auto noise = keyed_normal({kSamplingSeed, RandomStream::kSampleNoise, 0}, 0, batch, {3, spec.image_size, spec.image_size});
  const auto z = noise.to(options.device).contiguous(torch::MemoryFormat::ChannelsLast);
  const Condition condition{torch::arange(batch).remainder(spec.label_dim).to(options.device), {}};
  nlohmann::json result = {{"description", {{"network", to_json(spec)}, {"batch", batch}, {"steps", heun ? kHeunSteps : 1}, {"sigma", kGeneratorSigma}}}};
  if (!options.inputs.empty()) {
    Collected collected;
    for (const TensorView& view : named_tensors(buffers.values().cpu(), buffers.views())) {
      collected.add("weights." + view.name, torch::from_blob(const_cast<std::byte*>(view.bytes.data()), view.shape, torch::kFloat32).clone());
    }
    collected.add("input.z", noise);
    collected.add("input.label", condition.labels);
    write_safetensors(options.inputs, collected.views(), {{"description", result["description"].dump()}});
  }
  SamplerSpec sampler;
  sampler.kind = "heun";
  sampler.steps = kHeunSteps;
  torch::Tensor x;
  const torch::NoGradGuard no_grad;
  const auto work = [&] { x = heun ? sample(*denoiser, sampler, z, condition, {}) : generate(*denoiser, z, condition, kGeneratorSigma); };
  for (int i = 0; i < 2; ++i) work();
  result["values"] = values_of(x);
  const Timing eager = time_work(work, 0, 1);
  const auto recorded = record(work);
  const Timing timing = time_work([&] { recorded->run(); }, options.seconds, 2);
  result["eager_ms"] = eager.seconds_each * 1e3;
  result["ms_per_iteration"] = timing.seconds_each * 1e3;
  result["iterations"] = timing.count;
  result["images_per_second"] = static_cast<double>(batch) / timing.seconds_each;
  return result;
}

}  // namespace onestep
