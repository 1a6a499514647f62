#include "worker/sampling/sampler.h"

#include <array>
#include <string>
#include <string_view>

#include "common/error.h"
#include "worker/sampling/heun.h"
#include "worker/sampling/one_step.h"

namespace onestep {
namespace {

struct SamplerEntry {
  std::string_view kind;
  torch::Tensor (*run)(Denoiser&, const SamplerSpec&, const torch::Tensor&, const Condition&);
  std::int64_t (*num_calls)(const SamplerSpec&);
};

// All samplers.
constexpr std::array kSamplers = {
    SamplerEntry{"heun", sample_heun, [](const SamplerSpec& spec) { return 2 * spec.steps - 1; }},
    SamplerEntry{"one_step", sample_one_step, [](const SamplerSpec&) { return std::int64_t{1}; }},
};

const SamplerEntry& find(const SamplerSpec& spec) {
  std::string known;
  for (const SamplerEntry& entry : kSamplers) {
    if (entry.kind == spec.kind) return entry;
    known += (known.empty() ? "" : ", ") + std::string(entry.kind);
  }
  throw Error(ErrorCode::kConfig,
              "sampler: kind: expected one of " + known + ", found " + spec.kind);
}

void check_shapes(const Denoiser& denoiser, const torch::Tensor& noise,
                  const Condition& condition) {
  const auto [channels, height, width] = denoiser.image_shape();
  if (noise.dim() != 4 || noise.size(1) != channels || noise.size(2) != height ||
      noise.size(3) != width || noise.scalar_type() != torch::kFloat32) {
    throw Error(ErrorCode::kMismatch, "sampler: noise: expected fp32 [B," +
                                          std::to_string(channels) + "," + std::to_string(height) +
                                          "," + std::to_string(width) + "], found " +
                                          std::string(c10::toString(noise.scalar_type())) + " " +
                                          c10::str(noise.sizes()));
  }
  const bool labelled = condition.labels.defined();
  if (labelled && (condition.labels.dim() != 1 || condition.labels.size(0) != noise.size(0))) {
    throw Error(ErrorCode::kMismatch, "sampler: labels: expected [" +
                                          std::to_string(noise.size(0)) + "], found " +
                                          c10::str(condition.labels.sizes()));
  }
}

}  // namespace

torch::Tensor sample(Denoiser& denoiser, const SamplerSpec& spec, const torch::Tensor& noise,
                     const Condition& condition) {
  const SamplerEntry& sampler = find(spec);
  check_shapes(denoiser, noise, condition);
  const torch::NoGradGuard no_grad;
  return sampler.run(denoiser, spec, noise, condition);
}

std::int64_t num_network_calls(const SamplerSpec& spec) { return find(spec).num_calls(spec); }

}  // namespace onestep
