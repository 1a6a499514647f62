#include "worker/metrics/quality.h"

#include <algorithm>
#include <string>

#include "common/error.h"

namespace onestep {
namespace {

void check_labels(const torch::Tensor& images, const torch::Tensor& labels,
                  std::int64_t num_classes) {
  if (images.dim() != 4 || labels.dim() != 1 || images.size(0) != labels.size(0) ||
      images.size(0) < 1) {
    throw Error(ErrorCode::kMismatch, "quality: expected images [N,C,H,W] and labels [N], found " +
                                          c10::str(images.sizes()) + " and " +
                                          c10::str(labels.sizes()));
  }
  if (labels.min().item<std::int64_t>() < 0 || labels.max().item<std::int64_t>() >= num_classes) {
    throw Error(ErrorCode::kMismatch, "quality: labels: expected 0.." +
                                          std::to_string(num_classes - 1) + ", found " +
                                          std::to_string(labels.min().item<std::int64_t>()) + ".." +
                                          std::to_string(labels.max().item<std::int64_t>()));
  }
}

}  // namespace

PixelStats pixel_stats(const torch::Tensor& images, const torch::Tensor& labels,
                       std::int64_t num_classes) {
  check_labels(images, labels, num_classes);
  const auto pixels = images.detach().to(torch::kFloat64).clamp(-1, 1).flatten(1);
  PixelStats stats;
  stats.mean = pixels.mean().item<double>();
  std::int64_t classes_measured = 0;
  for (std::int64_t c = 0; c < num_classes; ++c) {
    const auto members = pixels.index_select(0, (labels == c).nonzero().flatten());
    if (members.size(0) < 2) continue;
    stats.spread += members.std(/*dim=*/0, /*unbiased=*/true).mean().item<double>();
    ++classes_measured;
  }
  if (classes_measured == 0) {
    throw Error(ErrorCode::kMismatch,
                "quality: spread: expected a class of two images or more, found none");
  }
  stats.spread /= static_cast<double>(classes_measured);
  return stats;
}

Quality measure_quality(const torch::Tensor& images, const torch::Tensor& labels,
                        const torch::Tensor& logits, const PixelStats& real) {
  if (logits.dim() != 2 || logits.size(0) != images.size(0)) {
    throw Error(ErrorCode::kMismatch, "quality: expected logits [" +
                                          std::to_string(images.size(0)) + ",classes], found " +
                                          c10::str(logits.sizes()));
  }
  const std::int64_t num_classes = logits.size(1);
  const PixelStats generated = pixel_stats(images, labels, num_classes);
  const auto detected = logits.detach().argmax(1);
  const auto count = static_cast<double>(images.size(0));

  Quality quality;
  quality.class_accuracy =
      static_cast<double>((detected == labels).sum().item<std::int64_t>()) / count;
  quality.spread = generated.spread / real.spread;
  quality.mean_shift = generated.mean - real.mean;
  for (std::int64_t c = 0; c < num_classes; ++c) {
    quality.class_share.push_back(static_cast<double>((detected == c).sum().item<std::int64_t>()) /
                                  count);
  }
  quality.class_balance =
      *std::min_element(quality.class_share.begin(), quality.class_share.end()) *
      static_cast<double>(num_classes);
  return quality;
}

}  // namespace onestep
