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

JobResult run_sample(const RunContext& context) {
  constexpr std::int64_t kBatch = 250;
  const auto& spec = std::get<SampleSpec>(context.spec.options);
  JobResult result;
  if (context.communicator.rank() != 0) return result;
  const LoadedModel model = load_model(spec.model, "ema");
  const SampleDraw draw = sample_draw(*model.denoiser, context.spec.seed, spec.count, spec.label);
  const auto start = std::chrono::steady_clock::now();
  std::vector<torch::Tensor> images;
  for (std::int64_t first = 0; first < spec.count; first += kBatch) {
    const std::int64_t count = std::min(kBatch, spec.count - first);
    Condition condition;
    if (draw.condition.labels.defined()) condition.labels = draw.labels.narrow(0, first, count);
    SampleOptions options;
    options.rows = SampleRows{context.spec.seed, first};
    images.push_back(sample(*model.denoiser, sampler_of(model), draw.noise.narrow(0, first, count), condition, options));
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const auto columns = static_cast<std::int64_t>(std::ceil(std::sqrt(static_cast<double>(spec.count))));
  const std::int64_t scale = std::max<std::int64_t>(1, 56 / model.network.image_size);
  const Picture grid = make_grid(torch::cat(images).clamp(-1, 1), {columns, scale});
  write_png(spec.out, grid);
  result.digest = sha256_file(spec.out);
  result.result = {{"out", spec.out},
                   {"count", spec.count},
                   {"model_sha256", model.sha256},
                   {"images_per_second", static_cast<double>(spec.count) / seconds}};
  return result;
}

}  // namespace onestep
