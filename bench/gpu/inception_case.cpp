#include <cmath>

#include "cases.h"
#include "collected.h"
#include "timing.h"
#include "worker/models/inception.h"
#include "worker/models/initialize.h"

namespace onestep {

nlohmann::json run_inception(const BenchOptions& options) {
  constexpr std::uint64_t kSeed = 7;
  const std::int64_t batch = options.small ? 1 : 128;
  Collected collected;
  for (const ExpectedTensor& expected : inception_tensors()) {
    torch::Tensor tensor = torch::empty(expected.shape);
    const double fan_in = static_cast<double>(tensor.numel() / tensor.size(0));
    fill_keyed_uniform(tensor, kSeed, expected.name, tensor.dim() == 1 ? 0.1 : std::sqrt(6 / fan_in));
    if (expected.name.ends_with("running_var")) tensor.abs_().add_(1);
    collected.add(expected.name, tensor);
  }
  Inception net(collected.views(), "keyed");
  net.move_to(options.device, torch::kBFloat16);
  torch::Tensor images = torch::empty({batch, 3, Inception::kSide, Inception::kSide});
  fill_keyed_uniform(images, kSeed, "images", 1);
  collected.add("input.images", images);
  nlohmann::json result = {{"description", {{"batch", batch}}}};
  if (!options.inputs.empty()) write_safetensors(options.inputs, collected.views(), {{"description", result["description"].dump()}});
  const auto x = images.to(options.device);
  torch::Tensor features;
  const auto work = [&] { features = net.features(x); };
  for (int i = 0; i < 2; ++i) work();
  result["values"] = values_of(features);
  const auto recorded = record(work);
  const Timing timing = time_work([&] { recorded->run(); }, options.seconds, 1);
  result["ms_per_iteration"] = timing.seconds_each * 1e3;
  result["images_per_second"] = static_cast<double>(batch) / timing.seconds_each;
  return result;
}

}  // namespace onestep
