// Draws pictures from a finished model: `onestep sample`.
#include <algorithm>
#include <chrono>
#include <cmath>

#include "common/error.h"
#include "common/hash.h"
#include "worker/metrics/image_grid.h"
#include "worker/metrics/picture.h"
#include "worker/run/jobs.h"
#include "worker/run/model_folder.h"
#include "worker/run/sample_noise.h"
#include "worker/sampling/sampler.h"

namespace onestep {
namespace {

constexpr std::int64_t kBatch = 250, kTextBatch = 8;

torch::Tensor draw_images(const LoadedModel& model, const SampleSpec& spec, std::uint64_t seed) {
  if (!spec.prompts.empty()) {
    throw Error(ErrorCode::kMismatch, "prompts: expected none for " + model.path + ", a network without text, found " +
                                          std::to_string(spec.prompts.size()));
  }
  const SampleDraw draw = sample_draw(*model.denoiser, seed, spec.count, spec.label);
  std::vector<torch::Tensor> images;
  for (std::int64_t first = 0; first < spec.count; first += kBatch) {
    const std::int64_t count = std::min(kBatch, spec.count - first);
    Condition condition;
    if (draw.condition.labels.defined()) condition.labels = draw.labels.narrow(0, first, count);
    SampleOptions options;
    options.rows = SampleRows{seed, first};
    images.push_back(sample(*model.denoiser, sampler_of(model), draw.noise.narrow(0, first, count), condition, options));
  }
  return torch::cat(images);
}

// Image i is of prompt i mod their number.
torch::Tensor draw_text_images(LoadedModel& model, const SampleSpec& spec, std::uint64_t seed) {
  if (spec.prompts.empty()) {
    throw Error(ErrorCode::kMismatch, "prompts: expected texts for " + model.path + ", a text-to-image model, found none");
  }
  const torch::NoGradGuard no_grad;
  const SampleDraw draw = sample_draw(*model.denoiser, seed, spec.count, spec.label);
  SdPipeline parts = load_other_parts(*model.sd);
  const auto text = embed_prompts(parts, spec.prompts), null_text = embed_prompts(parts, {""});
  std::vector<torch::Tensor> images;
  for (std::int64_t first = 0; first < spec.count; first += kTextBatch) {
    const std::int64_t count = std::min(kTextBatch, spec.count - first);
    const auto prompt = torch::arange(first, first + count).remainder(text.size(0));
    SampleOptions options;
    options.rows = SampleRows{seed, first};
    options.null_text = null_text;
    const auto latents = sample(*model.denoiser, sampler_of(model), draw.noise.narrow(0, first, count),
                                {{}, text.index_select(0, prompt)}, options);
    images.push_back(parts.vae->images_of(latents));
  }
  return torch::cat(images);
}

}  // namespace

JobResult run_sample(const RunContext& context) {
  const auto& spec = std::get<SampleSpec>(context.spec.options);
  JobResult result;
  if (context.communicator.rank() != 0) return result;
  LoadedModel model = load_model(spec.model, "ema", spec.like);
  const auto start = std::chrono::steady_clock::now();
  const auto images = model.sd ? draw_text_images(model, spec, context.spec.seed) : draw_images(model, spec, context.spec.seed);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const auto columns = static_cast<std::int64_t>(std::ceil(std::sqrt(static_cast<double>(spec.count))));
  const std::int64_t scale = std::max<std::int64_t>(1, 56 / images.size(3));
  const Picture grid = make_grid(images.clamp(-1, 1), {columns, scale});
  write_png(spec.out, grid);
  result.digest = sha256_file(spec.out);
  result.result = {{"out", spec.out},
                   {"count", spec.count},
                   {"model_sha256", model.sha256},
                   {"images_per_second", static_cast<double>(spec.count) / seconds}};
  return result;
}

}  // namespace onestep
