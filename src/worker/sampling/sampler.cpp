#include "worker/sampling/sampler.h"

#include <string>

#include "common/error.h"
#include "worker/diffusion/guidance.h"
#include "worker/sampling/sampler_table.h"

namespace onestep {
namespace {

const SamplerEntry& find(const SamplerSpec& spec) {
  std::string known;
  for (const SamplerEntry& entry : sampler_table()) {
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

torch::Tensor sample(Denoiser& denoiser, const SamplerSpec& spec, const torch::Tensor& noise, const Condition& condition,
                     const SampleOptions& options) {
  const SamplerMethod& method = find(spec).method;
  method.check(spec, denoiser.schedule());
  check_shapes(denoiser, noise, condition);
  const torch::NoGradGuard no_grad;
  GuidedDenoiser guided(denoiser, spec.guidance_scale, options.null_text);
  return method.run({guided, spec, noise, condition, options.rows});
}

std::int64_t num_network_calls(const SamplerSpec& spec) {
  return find(spec).method.num_calls(spec) * (spec.guidance_scale > 1 ? 2 : 1);
}

}  // namespace onestep
