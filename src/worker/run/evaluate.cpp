// Judges images by a small detector: Fréchet distance, class accuracy, spread; and a panel for a person to look at.
#include <algorithm>
#include <chrono>
#include <cstring>

#include "common/error.h"
#include "common/hash.h"
#include "worker/data/global_order.h"
#include "worker/data/image_dataset.h"
#include "worker/metrics/feature_stats.h"
#include "worker/metrics/frechet.h"
#include "worker/metrics/image_grid.h"
#include "worker/metrics/quality.h"
#include "worker/run/detector_folder.h"
#include "worker/run/evaluate_inception.h"
#include "worker/run/evaluation_panel.h"
#include "worker/run/job_text.h"
#include "worker/run/jobs.h"
#include "worker/run/model_folder.h"
#include "worker/run/sample_noise.h"
#include "worker/sampling/sampler.h"
#include "worker/tensors/keyed_random.h"

namespace onestep {
namespace {

constexpr std::int64_t kPanelImagesPerClass = 10, kPanelScale = 2;
constexpr std::int64_t kDecodedAtOnce = 16;

struct Features {
  torch::Tensor features, logits;  // [N,64], [N,classes]
};

Features detect(DigitDetector& detector, const torch::Tensor& images) {
  torch::NoGradGuard no_grad;
  std::vector<torch::Tensor> features, logits;
  for (const auto& batch : images.split(500)) {
    features.push_back(detector->features(batch));
    logits.push_back(detector->logits(features.back()));
  }
  return {torch::cat(features), torch::cat(logits)};
}

struct Generated {
  torch::Tensor images, labels;  // at the data's side
  torch::Tensor samples;         // what they were made of: latents of networks with text, else the images themselves
  double images_per_second = 0;
};

std::string bytes_of(const torch::Tensor& tensor) {
  return {reinterpret_cast<const char*>(tensor.const_data_ptr<float>()),
          static_cast<std::size_t>(tensor.numel()) * sizeof(float)};
}

// The shape of the images that a model's samples become.
ImageShape shape_of_images(const LoadedModel& model, const JobText& text) {
  const ImageShape shape = model.denoiser->image_shape();
  if (!text.prompts) return shape;
  const AutoencoderKlConfig& vae = text.parts.vae->config();
  const auto factor = std::int64_t{1} << (vae.block_out_channels.size() - 1);
  return {vae.out_channels, factor * shape.height, factor * shape.width};
}

// Within [-1, 1].
torch::Tensor images_of_latents(AutoencoderKl vae, const torch::Tensor& latents) {
  const torch::NoGradGuard no_grad;
  std::vector<torch::Tensor> images;
  for (const auto& rows : latents.split(kDecodedAtOnce)) images.push_back(vae->images_of(rows).clamp(-1, 1));
  return torch::cat(images);
}

// Boxes of pixels averaged down to the data's side, as the data's own are.
torch::Tensor at_side(const torch::Tensor& images, std::int64_t side) { return torch::avg_pool2d(images, images.size(2) / side); }

// All ranks' chunks of `batch` rows, which were dealt to them in turn, in order on rank 0. Collective.
torch::Tensor in_order(const RunContext& context, const EvaluateSpec& spec, const std::string& mine, const ImageShape& shape) {
  const auto all = context.communicator.gather_texts(mine, 0);
  if (context.communicator.rank() != 0) return {};
  const std::int64_t row_bytes = shape.channels * shape.height * shape.width * static_cast<std::int64_t>(sizeof(float));
  const torch::Tensor rows = torch::empty({spec.count, shape.channels, shape.height, shape.width});
  auto* out = reinterpret_cast<char*>(rows.data_ptr<float>());
  std::vector<std::size_t> used(all.size(), 0);
  for (std::int64_t chunk = 0; chunk * spec.batch < spec.count; ++chunk) {
    const std::size_t owner = static_cast<std::size_t>(chunk) % all.size();
    const auto size = static_cast<std::size_t>(std::min(spec.batch, spec.count - chunk * spec.batch) * row_bytes);
    std::memcpy(out + chunk * spec.batch * row_bytes, all[owner].data() + used[owner], size);
    used[owner] += size;
  }
  return rows;
}

// Network calls of `batch` rows are dealt to ranks in turn; rank 0 has the images, `side` pixels a side.
Generated generate_images(const RunContext& context, const EvaluateSpec& spec, const LoadedModel& model, const JobText& text,
                          std::int64_t side) {
  const ImageShape shape = model.denoiser->image_shape();
  Generated generated;
  generated.labels = numbered_labels(*model.denoiser, text.prompts.get(), 0, spec.count);
  const auto start = std::chrono::steady_clock::now();
  std::string samples, images;
  for (std::int64_t chunk = context.communicator.rank(); chunk * spec.batch < spec.count; chunk += context.communicator.size()) {
    const std::int64_t first = chunk * spec.batch;
    const std::int64_t count = std::min(spec.batch, spec.count - first);
    const auto noise = keyed_normal({context.spec.seed, RandomStream::kEvaluationNoise, 0}, first, count,
                                    {shape.channels, shape.height, shape.width});
    const NumberedRows rows = numbered_rows(*model.denoiser, text.prompts.get(), first, count);
    SampleOptions options;
    options.rows = SampleRows{context.spec.seed, first};
    options.null_text = rows.null_text;
    const auto made = sample(*model.denoiser, spec.sampler, noise, rows.condition, options);
    samples += bytes_of(made.contiguous());
    if (text.prompts) images += bytes_of(at_side(images_of_latents(text.parts.vae, made), side).contiguous());
  }
  generated.images_per_second =
      static_cast<double>(spec.count) /
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  generated.samples = in_order(context, spec, samples, shape);
  generated.images = text.prompts ? in_order(context, spec, images, {shape_of_images(model, text).channels, side, side}) : generated.samples;
  return generated;
}

std::string caption_of(const EvaluateSpec& spec, const LoadedModel* model) {
  if (model == nullptr) return "real";
  const std::string who = model->kind == "distill" ? "student" : "teacher";
  return who + ", " + steps_text(spec.sampler);
}

torch::Tensor panel_rows(const torch::Tensor& labels, const ImageDataset& dataset) {
  return rows_by_class(labels, dataset.num_classes(), kPanelImagesPerClass);
}

// `images`, those of panel_rows(), as large as they are, the data's pixels kPanelScale wide where the data is no smaller.
void write_panels(const RunContext& context, const EvaluateSpec& spec, const torch::Tensor& images, const ImageDataset& dataset,
                  const std::string& caption) {
  const std::int64_t scale = std::max<std::int64_t>(1, kPanelScale * dataset.images().size(2) / images.size(2));
  const Picture grid = make_grid(images, {kPanelImagesPerClass, scale});
  write_evaluation_panel(context.run, grid, caption, spec.compare);
}

// The data against itself: one random half against the other.
JobResult evaluate_real(const RunContext& context, const EvaluateSpec& spec, const ImageDataset& dataset,
                        LoadedDetector& detector) {
  JobResult result;
  if (context.communicator.rank() != 0) return result;
  const Features real = detect(detector.module, dataset.images());
  std::vector<std::int64_t> halves[2];
  for (std::int64_t place = 0; place < dataset.size(); ++place) {
    halves[place % 2].push_back(ordered_index(context.spec.seed, dataset.size(), place));
  }
  const double frechet = frechet_distance(feature_stats(real.features.index_select(0, torch::tensor(halves[0]))),
                                          feature_stats(real.features.index_select(0, torch::tensor(halves[1]))));
  const PixelStats pixels = pixel_stats(dataset.images(), dataset.labels(), dataset.num_classes());
  const Quality quality = measure_quality(dataset.images(), dataset.labels(), real.logits, pixels);
  result.result = {{"source", spec.source},
                   {"frechet", frechet},
                   {"class_accuracy", quality.class_accuracy},
                   {"count", dataset.size()},
                   {"detector_sha256", detector.sha256},
                   {"dataset_sha256", dataset.digest()}};
  write_panels(context, spec, dataset.images().index_select(0, panel_rows(dataset.labels(), dataset)), dataset, caption_of(spec, nullptr));
  return result;
}

}  // namespace

JobResult run_evaluate(const RunContext& context) {
  const auto& spec = std::get<EvaluateSpec>(context.spec.options);
  if (spec.detector.ends_with(".safetensors")) return evaluate_with_inception(context, spec);
  const ImageDataset dataset(spec.dataset);
  LoadedDetector detector = load_detector(spec.detector);
  if (detector.module->side() != dataset.images().size(2)) {
    throw Error(ErrorCode::kMismatch, spec.detector + ": expected a detector of " +
                                          std::to_string(dataset.images().size(2)) + " pixels a side, found one of " +
                                          std::to_string(detector.module->side()));
  }
  JobResult result;
  if (spec.source == "real_split_half") {
    result = evaluate_real(context, spec, dataset, detector);
  } else {
    LoadedModel model = load_model(spec.model, spec.weights, spec.like);
    const JobText text = load_job_text(model, spec.prompts, /*verify=*/context.communicator.rank() == 0);
    check_sampler_of(model, spec.sampler);
    const ImageShape shape = shape_of_images(model, text);
    const std::int64_t side = dataset.images().size(2);
    const bool side_fits = text.prompts ? shape.height % side == 0 && shape.height == shape.width : shape.height == side;
    if (shape.channels != dataset.images().size(1) || !side_fits) {
      throw Error(ErrorCode::kMismatch, spec.model + ": the model's images don't have the data's shape");
    }
    if (text.prompts && text.prompts->size() != dataset.num_classes()) {
      throw Error(ErrorCode::kMismatch, text.prompts->path() + ": expected a prompt for each of the " + std::to_string(dataset.num_classes()) +
                                            " classes of " + spec.dataset.path + ", found " + std::to_string(text.prompts->size()));
    }
    const Generated generated = generate_images(context, spec, model, text, side);
    if (context.communicator.rank() == 0) {
      const auto images = generated.images.clamp(-1, 1);
      const Features fake = detect(detector.module, images);
      const Features real = detect(detector.module, dataset.images());
      const PixelStats pixels = pixel_stats(dataset.images(), dataset.labels(), dataset.num_classes());
      const Quality quality = measure_quality(images, generated.labels, fake.logits, pixels);
      result.result = {{"source", spec.source},
                       {"frechet", frechet_distance(feature_stats(real.features), feature_stats(fake.features))},
                       {"class_accuracy", quality.class_accuracy},
                       {"spread", quality.spread},
                       {"mean_shift", quality.mean_shift},
                       {"class_balance", quality.class_balance},
                       {"class_share", quality.class_share},
                       {"images_per_second", generated.images_per_second},
                       {"count", spec.count},
                       {"noise_seed", context.spec.seed},
                       {"weights", model.weights},
                       {"images", model.images},
                       {"model_sha256", model.sha256},
                       {"detector_sha256", detector.sha256},
                       {"dataset_sha256", dataset.digest()}};
      if (text.prompts) result.result["prompts_sha256"] = text.prompts->info().digest();
      const auto rows = panel_rows(generated.labels, dataset);
      write_panels(context, spec, text.prompts ? images_of_latents(text.parts.vae, generated.samples.index_select(0, rows)) : images.index_select(0, rows),
                   dataset, caption_of(spec, &model));
    }
  }
  if (context.communicator.rank() == 0) {
    // Speed is no property of what was judged: the digest leaves it out, so that equal runs agree.
    nlohmann::json judged = result.result;
    judged.erase("images_per_second");
    result.digest = sha256(judged.dump());
  }
  return result;
}

}  // namespace onestep
