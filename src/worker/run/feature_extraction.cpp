#include "worker/run/feature_extraction.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <span>
#include <vector>

#include "common/log.h"
#include "worker/run/gather_bytes.h"

namespace onestep {
namespace {

constexpr std::int64_t kNetworkRows = 25;  // of one call of Inception: 150 MB of activations
constexpr double kLogEvery_s = 20;

void append(std::string& bytes, const torch::Tensor& tensor) {
  const auto values = tensor.contiguous();
  bytes.append(reinterpret_cast<const char*>(values.const_data_ptr<float>()), values.nbytes());
}

torch::Tensor joined(const std::vector<std::string>& parts, std::int64_t rows, std::int64_t columns) {
  auto tensor = torch::empty({rows, columns});
  auto* to = reinterpret_cast<char*>(tensor.data_ptr<float>());
  for (const std::string& part : parts) {
    std::memcpy(to, part.data(), part.size());
    to += part.size();
  }
  return tensor;
}

// One part of each rank's sums a round, so that rank 0 holds few of them at a time.
FeatureStats merged(Communicator& communicator, FeatureAccumulator mine) {
  const std::uint64_t parts = mine.num_parts();
  std::vector<std::uint64_t> all_parts(static_cast<std::size_t>(communicator.size()));
  communicator.all_gather(std::as_bytes(std::span(&parts, 1)), std::as_writable_bytes(std::span(all_parts)));
  const bool is_root = communicator.rank() == 0;
  all_parts[0] = 0;  // rank 0 keeps its own
  const std::uint64_t rounds = *std::max_element(all_parts.begin(), all_parts.end());
  FeatureAccumulator others = mine;
  for (std::uint64_t round = 0; round < rounds; ++round) {
    const auto texts = gather_bytes(communicator, !is_root && round < parts ? mine.part(round) : "", 0);
    for (const std::string& text : texts) {
      if (!text.empty()) others.merge_part(text);
    }
  }
  return is_root ? others.finish() : FeatureStats{};
}

}  // namespace

ExtractedFeatures extract_features(Communicator& communicator, const Inception& inception, const ExtractionOptions& options,
                                   const std::function<torch::Tensor(std::int64_t, std::int64_t)>& input) {
  torch::NoGradGuard no_grad;
  const std::int64_t rank = communicator.rank(), ranks = communicator.size();
  const std::int64_t chunks = (options.count + options.batch - 1) / options.batch;
  FeatureAccumulator accumulator(options.count, Inception::kNumFeatures);
  std::string features_bytes, logits_bytes;
  auto said = std::chrono::steady_clock::now();
  // Contiguous chunks, the first always on rank 0: with more ranks than chunks some have none.
  const auto first_chunk_of = [&](std::int64_t r) { return (chunks * r + ranks - 1) / ranks; };
  const std::int64_t end = first_chunk_of(rank + 1);
  for (std::int64_t chunk = first_chunk_of(rank); chunk < end; ++chunk) {
    const std::int64_t first = chunk * options.batch;
    const auto images = input(first, std::min(options.batch, options.count - first));
    std::int64_t row = first;
    for (const auto& rows : images.split(kNetworkRows)) {
      const auto features = inception.features(rows);
      accumulator.add(row, features);
      row += rows.size(0);
      if (options.keep_features) append(features_bytes, features);
      if (options.keep_logits) append(logits_bytes, inception.logits_without_bias(features));
    }
    const auto now = std::chrono::steady_clock::now();
    if (rank == 0 && std::chrono::duration<double>(now - said).count() > kLogEvery_s) {
      said = now;
      log_info("inception: " + options.what + ": chunk " + std::to_string(chunk + 1) + " of " + std::to_string(end) +
               (ranks > 1 ? " on each of " + std::to_string(ranks) + " ranks" : ""));
    }
  }
  ExtractedFeatures extracted;
  extracted.stats = merged(communicator, std::move(accumulator));
  const auto gathered = [&](const std::string& mine, std::int64_t columns) {
    const auto parts = gather_bytes(communicator, mine, 0);
    return rank == 0 ? joined(parts, options.count, columns) : torch::Tensor();
  };
  if (options.keep_features) extracted.features = gathered(features_bytes, Inception::kNumFeatures);
  if (options.keep_logits) extracted.logits = gathered(logits_bytes, Inception::kNumClasses);
  return extracted;
}

}  // namespace onestep
