#include "worker/metrics/inception_score.h"

#include <cmath>
#include <string>
#include <vector>

#include "common/error.h"
#include "worker/metrics/numpy_random.h"

namespace onestep {

InceptionScore inception_score(const torch::Tensor& logits, const InceptionScoreOptions& options) {
  if (logits.dim() != 2 || options.splits < 1 || logits.size(0) < options.splits) {
    throw Error(ErrorCode::kMismatch, "inception score: expected logits [N,K] of " + std::to_string(options.splits) +
                                          " images or more, found " + c10::str(logits.sizes()));
  }
  const std::int64_t count = logits.size(0);
  torch::Tensor rows = logits.detach();
  if (options.shuffle) {
    rows = rows.index_select(0, torch::tensor(NumpyRandom(options.seed).permutation(count)));
  }
  std::vector<double> scores;
  for (std::int64_t split = 0; split < options.splits; ++split) {
    const std::int64_t begin = split * count / options.splits, end = (split + 1) * count / options.splits;
    const auto log_p = rows.narrow(0, begin, end - begin).to(torch::kFloat64).log_softmax(1);
    const auto p = log_p.exp();
    const auto divergence = (p * (log_p - p.mean(0, /*keepdim=*/true).log())).sum(1);
    scores.push_back(std::exp(divergence.mean().item<double>()));
  }
  InceptionScore score;
  for (const double value : scores) score.mean += value / static_cast<double>(scores.size());
  for (const double value : scores) {
    score.deviation += (value - score.mean) * (value - score.mean) / static_cast<double>(scores.size());
  }
  score.deviation = std::sqrt(score.deviation);
  return score;
}

}  // namespace onestep
