#include "cases.h"
#include "collected.h"
#include "timing.h"
#include "worker/optim/device_update.h"

namespace onestep {
namespace {

// Exact in fp32, and easily made on the other side: ((i * 2654435761 + offset) mod 2^24) / 2^24 - 1/2.
torch::Tensor pattern(std::int64_t count, std::int64_t offset, const torch::Device& device) {
  const auto i = torch::arange(count, torch::TensorOptions(torch::kInt64).device(device));
  return (i * 2654435761 + offset).bitwise_and(0xffffff).to(torch::kFloat32) * 0x1p-24 - 0.5;
}

}  // namespace

// The update of the two published networks: norm, clip, AdamW, one average, the bfloat16 shadow; against the bytes that these have to move.
nlohmann::json run_optimizer(const BenchOptions& options) {
  constexpr std::int64_t kMultiple = 1024;
  // Gradient read twice, parameters, both moments and the average read and written, the shadow written.
  constexpr double kBytesEach = 4 * (2 + 2 * 4) + 2;
  nlohmann::json cases = nlohmann::json::array();
  for (const std::int64_t parameters : {std::int64_t{55'735'299}, std::int64_t{295'899'267}}) {
    const std::int64_t count = (options.small ? parameters / 10'000 : parameters) / kMultiple * kMultiple;
    const auto values = pattern(count, 1, options.device), gradient = pattern(count, 2, options.device) * 0.01;
    const auto exp_avg = torch::zeros_like(values), exp_avg_sq = torch::zeros_like(values), average = values.clone();
    const auto shadow = torch::empty_like(values, torch::kBFloat16);
    DeviceUpdate update({values, exp_avg, exp_avg_sq, {average}, shadow}, {}, 1.0);
    AdamwOptions adamw;
    adamw.learning_rate = 1e-3;
    adamw.beta2 = 0.999;
    adamw.weight_decay = 0.01;
    const std::vector<double> decays = {0.999};
    update.set_constants(adamw, 1, decays);
    update.step(gradient);
    const auto checked = values_of(values);
    const double norm = update.decision()[0].item<double>();
    const Timing timing = time_work([&] { update.step(gradient); }, options.seconds / 2);
    cases.push_back({{"count", count}, {"ms", timing.seconds_each * 1e3}, {"norm", norm}, {"values", checked},
                     {"bytes_per_second", kBytesEach * static_cast<double>(count) / timing.seconds_each}});
  }
  return {{"cases", cases}, {"description", {{"learning_rate", 1e-3}, {"beta2", 0.999}, {"weight_decay", 0.01}, {"clip_norm", 1.0}, {"decay", 0.999}}}};
}

}  // namespace onestep
