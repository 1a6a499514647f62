// Judges images by Inception: FID, Inception Score, KID, precision and recall.
#pragma once

#include "worker/run/jobs.h"

namespace onestep {

// Collective. Every figure has the same bits at any number of ranks: a network call always has the same rows, and sums run over
// fixed blocks of rows. Writes statistics.npz (mu, sigma of the judged images), reference.npz when the reference was a dataset,
// and panel.png. Errors: kNotFound, kCorrupt, kMismatch.
JobResult evaluate_with_inception(const RunContext& context, const EvaluateSpec& spec);

}  // namespace onestep
