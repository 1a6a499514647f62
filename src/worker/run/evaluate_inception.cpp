#include "worker/run/evaluate_inception.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <optional>

#include "common/error.h"
#include "common/hash.h"
#include "common/log.h"
#include "common/safetensors_file.h"
#include "worker/data/image_dataset.h"
#include "worker/data/image_folder.h"
#include "worker/metrics/frechet.h"
#include "worker/metrics/image_grid.h"
#include "worker/metrics/inception_score.h"
#include "worker/metrics/kernel_distance.h"
#include "worker/metrics/pil_resize.h"
#include "worker/metrics/precision_recall.h"
#include "worker/metrics/reference_stats.h"
#include "worker/metrics/resize.h"
#include "worker/run/evaluation_panel.h"
#include "worker/run/feature_extraction.h"
#include "worker/run/gather_bytes.h"
#include "worker/run/job_text.h"
#include "worker/run/model_folder.h"
#include "worker/run/sample_noise.h"
#include "worker/sampling/sampler.h"
#include "worker/tensors/keyed_random.h"

namespace onestep {
namespace {

constexpr std::int64_t kDecoderRows = 8;
constexpr std::int64_t kPanelImages = 100, kPanelColumns = 10;
constexpr std::int64_t kNumKidSubsets = 100, kKidSubsetSize = 1000, kNeighbours = 3;

bool wants(const EvaluateSpec& spec, const char* metric) {
  return std::find(spec.metrics.begin(), spec.metrics.end(), metric) != spec.metrics.end();
}

// A numbered set of images that every rank can make or read any part of.
class ImageSource {
 public:
  virtual ~ImageSource() = default;
  [[nodiscard]] virtual std::int64_t size() const = 0;
  // Each [1 or more,C,H,W] uint8; together images first .. first+count-1, in order.
  virtual std::vector<torch::Tensor> read(std::int64_t first, std::int64_t count) = 0;
  // What of it belongs into the result. Collective; rank 0's counts.
  virtual nlohmann::json description(Communicator& communicator) = 0;
  [[nodiscard]] virtual std::string caption() const = 0;
};

// Image i is the model's from noise i of the job's seed, of class i mod the number of classes, or of prompt i mod that of prompts.
class ModelImages final : public ImageSource {
 public:
  ModelImages(const EvaluateSpec& spec, std::uint64_t seed, bool verify_prompts)
      : spec_(spec),
        seed_(seed),
        model_(load_model(spec.model, spec.weights, spec.like)),
        text_(load_job_text(model_, spec.prompts, verify_prompts)) {
    check_sampler_of(model_, spec.sampler);
  }
  [[nodiscard]] std::int64_t size() const override { return spec_.count; }
  std::vector<torch::Tensor> read(std::int64_t first, std::int64_t count) override {
    const ImageShape shape = model_.denoiser->image_shape();
    const auto noise = keyed_normal({seed_, RandomStream::kEvaluationNoise, 0}, first, count,
                                    {shape.channels, shape.height, shape.width});
    const NumberedRows rows = numbered_rows(*model_.denoiser, text_.prompts.get(), first, count);
    SampleOptions options;
    options.rows = SampleRows{seed_, first};
    options.null_text = rows.null_text;
    const auto made = sample(*model_.denoiser, spec_.sampler, noise, rows.condition, options);
    return {to_bytes(model_.sd ? decoded(made) : made)};
  }
  nlohmann::json description(Communicator&) override {
    nlohmann::json description = {{"noise_seed", seed_},
                                  {"weights", model_.weights},
                                  {"images", model_.images},
                                  {"model_sha256", model_.sha256}};
    if (text_.prompts) description["prompts_sha256"] = text_.prompts->info().digest();
    return description;
  }
  [[nodiscard]] std::string caption() const override {
    const std::string who = model_.kind == "distill" ? "student" : "teacher";
    return who + ", " + steps_text(spec_.sampler);
  }

 private:
  torch::Tensor decoded(const torch::Tensor& latents) {
    const torch::NoGradGuard no_grad;
    std::vector<torch::Tensor> images;
    for (const auto& rows : latents.split(kDecoderRows)) images.push_back(text_.parts.vae->images_of(rows));
    return torch::cat(images);
  }

  const EvaluateSpec& spec_;
  std::uint64_t seed_;
  LoadedModel model_;
  JobText text_;
};

class FolderImages final : public ImageSource {
 public:
  FolderImages(const std::string& path, std::int64_t limit) : folder_(path, limit) {}
  [[nodiscard]] std::int64_t size() const override { return folder_.size(); }
  std::vector<torch::Tensor> read(std::int64_t first, std::int64_t count) override {
    std::vector<torch::Tensor> images;
    for (std::int64_t i = first; i < first + count; ++i) {
      images.push_back(folder_.read(i).unsqueeze(0));
      digests_ += sha256(images.back().const_data_ptr(), images.back().nbytes());
    }
    return images;
  }
  // One digest over the digests of all pictures' bytes: ranks have read contiguous parts in order.
  nlohmann::json description(Communicator& communicator) override {
    std::string all;
    for (const std::string& part : gather_bytes(communicator, digests_, 0)) all += part;
    return {{"images_sha256", sha256(all)}};
  }
  [[nodiscard]] std::string caption() const override { return "images"; }

 private:
  ImageFolder folder_;
  std::string digests_;
};

class DatasetImages final : public ImageSource {
 public:
  explicit DatasetImages(const DatasetSpec& spec) : dataset_(spec) {}
  [[nodiscard]] std::int64_t size() const override { return dataset_.size(); }
  std::vector<torch::Tensor> read(std::int64_t first, std::int64_t count) override {
    // Stored bytes come back as they were; box means are rounded.
    return {((dataset_.images().narrow(0, first, count) + 1) * 127.5).round().clamp(0, 255).to(torch::kUInt8)};
  }
  nlohmann::json description(Communicator&) override { return {{"dataset_sha256", dataset_.digest()}}; }
  [[nodiscard]] std::string caption() const override { return "real"; }
  [[nodiscard]] const std::string& digest() const { return dataset_.digest(); }

 private:
  ImageDataset dataset_;
};

// Features of one side, and the first pictures for the panel (rank 0 reads those first).
struct Side {
  ExtractedFeatures extracted;
  std::vector<torch::Tensor> pictures;  // each [n,C,H,W] uint8
};

Side extract(const RunContext& context, const EvaluateSpec& spec, const Inception& inception, ImageSource& source,
             bool keep_logits, const std::string& what) {
  const InceptionResize resize = inception_resize(spec.resize);
  ExtractionOptions options;
  options.count = source.size();
  options.batch = spec.batch;
  options.keep_features = wants(spec, "kid") || wants(spec, "precision_recall");
  options.keep_logits = keep_logits;
  options.what = what;
  Side side;
  std::int64_t num_pictures = 0;
  side.extracted = extract_features(context.communicator, inception, options, [&](std::int64_t first, std::int64_t count) {
    std::vector<torch::Tensor> inputs;
    for (const auto& read : source.read(first, count)) {
      const auto images = spec.lanczos > 0 ? pil_resize_bytes(read, spec.lanczos, spec.lanczos, ResizeFilter::kLanczos) : read;
      if (context.communicator.rank() == 0 && num_pictures < kPanelImages) {
        side.pictures.push_back(images.narrow(0, 0, std::min(images.size(0), kPanelImages - num_pictures)));
        num_pictures += side.pictures.back().size(0);
      }
      inputs.push_back(inception_input(images, resize));
    }
    return torch::cat(inputs);
  });
  return side;
}

// The panel shows pictures of one size; a folder of several sizes gets those like its first.
void write_panel(const RunContext& context, const EvaluateSpec& spec, const Side& side, const std::string& caption) {
  std::vector<torch::Tensor> alike;
  for (const auto& pictures : side.pictures) {
    if (pictures.sizes().slice(1) == side.pictures.front().sizes().slice(1)) alike.push_back(pictures);
  }
  const auto images = torch::cat(alike);
  const std::int64_t columns = std::min(kPanelColumns, images.size(0));
  const auto scale = std::max<std::int64_t>(1, 28 / images.size(2));
  const Picture grid = make_grid((images.to(torch::kFloat32) - 127.5) / 127.5, {columns, scale});  // the same bytes again
  write_evaluation_panel(context.run, grid, caption, spec.compare);
}

struct Reference {
  ReferenceStats stats;
  nlohmann::json description;
};

Reference reference_of(const RunContext& context, const EvaluateSpec& spec, const Inception& inception) {
  Reference reference;
  const bool is_root = context.communicator.rank() == 0;
  if (!spec.dataset.path.empty()) {
    DatasetImages dataset(spec.dataset);
    const Side real = extract(context, spec, inception, dataset, /*keep_logits=*/false, "reference");
    if (!is_root) return reference;
    reference.stats.stats = real.extracted.stats;
    reference.stats.features = real.extracted.features;
    reference.stats.sha256 = dataset.digest();
    write_reference_stats(context.run + "/reference.npz", reference.stats.stats);
    reference.description = {{"dataset_sha256", dataset.digest()}, {"reference_count", dataset.size()}};
  } else if (is_root && !spec.reference.empty()) {
    reference.stats = read_reference_stats(spec.reference, Inception::kNumFeatures);
    reference.description = {{"reference_sha256", reference.stats.sha256}};
    if (reference.stats.stats.count > 0) reference.description["reference_count"] = reference.stats.stats.count;
  }
  if (is_root && (wants(spec, "kid") || wants(spec, "precision_recall")) && !reference.stats.features.defined()) {
    throw Error(ErrorCode::kMismatch, spec.reference +
                                          ": key `feats`: expected the features of each image, which kid and precision_recall "
                                          "need, found statistics alone");
  }
  return reference;
}

std::unique_ptr<ImageSource> source_of(const RunContext& context, const EvaluateSpec& spec) {
  if (spec.source == "images") return std::make_unique<FolderImages>(spec.images, spec.count);
  return std::make_unique<ModelImages>(spec, context.spec.seed, /*verify_prompts=*/context.communicator.rank() == 0);
}

// What has too few images for its figures shows before hours of sampling.
void check_enough(const EvaluateSpec& spec, const std::string& side, std::int64_t count) {
  if (!wants(spec, "precision_recall") || count > kNeighbours) return;
  throw Error(ErrorCode::kMismatch, "precision_recall: expected at least " + std::to_string(kNeighbours + 1) + " " + side +
                                        " images, found " + std::to_string(count));
}

nlohmann::json figures_of(const EvaluateSpec& spec, const ExtractedFeatures& judged, const ReferenceStats& reference) {
  nlohmann::json figures = nlohmann::json::object();
  if (wants(spec, "fid")) {
    figures["fid"] = frechet_distance(reference.stats, judged.stats);
    figures["frechet"] = figures["fid"];  // the name by which checkpoints are compared
  }
  if (wants(spec, "is")) {
    const InceptionScore score = inception_score(judged.logits, {});
    figures["inception_score"] = score.mean;
    figures["inception_score_deviation"] = score.deviation;
  }
  if (wants(spec, "kid")) {
    const std::int64_t judged_count = judged.features.size(0), reference_count = reference.features.size(0);
    const std::int64_t size = std::min({kKidSubsetSize, judged_count, reference_count});
    if (size < kKidSubsetSize) {
      log_warning("kid: estimates of " + std::to_string(size) + " images a side, all there are; published figures take " +
                  std::to_string(kKidSubsetSize));
    }
    const auto subsets = kernel_subsets(judged_count, reference_count, kNumKidSubsets, size);
    const KernelDistance distance = kernel_distance(judged.features, reference.features, subsets);
    figures["kid"] = distance.mean;
    figures["kid_deviation"] = distance.deviation;
    figures["kid_subset_size"] = size;
  }
  if (wants(spec, "precision_recall")) {
    const PrecisionRecall shares = precision_recall(reference.features, judged.features, kNeighbours);
    figures["precision"] = shares.precision;
    figures["recall"] = shares.recall;
  }
  return figures;
}

}  // namespace

JobResult evaluate_with_inception(const RunContext& context, const EvaluateSpec& spec) {
  const SafetensorsFile file(spec.detector);
  const Inception inception(file.tensors(), spec.detector);
  const std::unique_ptr<ImageSource> source = source_of(context, spec);
  check_enough(spec, "judged", source->size());
  // The reference first: what is wrong with it shows early too.
  const Reference reference = reference_of(context, spec, inception);
  if (reference.stats.features.defined()) check_enough(spec, "reference", reference.stats.features.size(0));
  const auto start = std::chrono::steady_clock::now();
  const Side judged = extract(context, spec, inception, *source, wants(spec, "is"), "images");
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const nlohmann::json description = source->description(context.communicator);
  JobResult result;
  if (context.communicator.rank() != 0) return result;
  result.result = figures_of(spec, judged.extracted, reference.stats);
  result.result.update(description);
  if (!reference.description.is_null()) result.result.update(reference.description);
  result.result.update({{"source", spec.source},
                        {"metrics", spec.metrics},
                        {"resize", spec.resize},
                        {"lanczos", spec.lanczos},
                        {"first_image", 0},
                        {"count", source->size()},
                        {"detector", "inception-2015-12-05"},
                        {"detector_sha256", sha256_file(spec.detector)}});
  // Speed is no property of what was judged: the digest leaves it out, so that equal runs agree.
  result.digest = sha256(result.result.dump());
  result.result["images_per_second"] = static_cast<double>(source->size()) / seconds;
  write_reference_stats(context.run + "/statistics.npz", judged.extracted.stats);
  write_panel(context, spec, judged, source->caption());
  return result;
}

}  // namespace onestep
