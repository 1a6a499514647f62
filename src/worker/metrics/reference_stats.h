// Reference statistics as numpy archives: what EDM, pytorch-fid and clean-fid publish and read.
#pragma once

#include <cstdint>
#include <string>

#include "worker/metrics/feature_stats.h"
#include "worker/tensors/torch.h"

namespace onestep {

struct ReferenceStats {
  FeatureStats stats;      // count 0: not stated in the file
  torch::Tensor features;  // [N,D] fp64 when the file holds features; else undefined, and KID or recall can't be had from it
  std::string sha256;      // of the file
};

// Reads an .npz with `mu` [D] and `sigma` [D,D] (EDM, pytorch-fid, clean-fid), or with `feats` [N,D] (clean-fid's for KID), or
// with all three. fp32 or fp64, either order; other keys are not looked at. num_features: the detector's D.
// Errors: kNotFound; kCorrupt or kMismatch naming file, key, expected, found: wrong shape, not finite, not symmetric.
ReferenceStats read_reference_stats(const std::string& path, std::int64_t num_features);

// Writes `mu` and `sigma` in fp64, durably; returns the file's SHA-256. numpy.load reads it. Errors: kIo.
std::string write_reference_stats(const std::string& path, const FeatureStats& stats);

}  // namespace onestep
