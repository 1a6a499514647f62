// Inception's features of a numbered set of images, shared out over the ranks and put together on rank 0.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "worker/comm/communicator.h"
#include "worker/metrics/feature_stats.h"
#include "worker/models/inception.h"
#include "worker/tensors/torch.h"

namespace onestep {

struct ExtractionOptions {
  std::int64_t count = 0;       // images 0 .. count-1; 2 or more
  std::int64_t batch = 250;     // rows of one call of `input`; fixed, so that bits don't depend on the ranks
  bool keep_features = false;   // for KID, precision and recall
  bool keep_logits = false;     // for the Inception Score
  std::string what;             // for the log: "images", "reference"
};

// On rank 0 alone.
struct ExtractedFeatures {
  FeatureStats stats;
  torch::Tensor features;  // [count,2048] fp32 if kept
  torch::Tensor logits;    // [count,1008] fp32 without the last bias, if kept
};

// `input(first, count)` -> [count,3,299,299] fp32 of images first .. first+count-1; each rank asks for contiguous rows, in order.
// Collective. Errors: what `input` throws; kCorrupt for features that are not finite.
ExtractedFeatures extract_features(Communicator& communicator, const Inception& inception, const ExtractionOptions& options,
                                   const std::function<torch::Tensor(std::int64_t, std::int64_t)>& input);

}  // namespace onestep
