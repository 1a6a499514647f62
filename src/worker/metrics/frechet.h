// The Fréchet distance of two sets of features, each taken as a Gaussian (Heusel et al. 2017, Eq.
// 6).
#pragma once

#include "worker/metrics/feature_stats.h"

namespace onestep {

// |m1 - m2|^2 + tr(C1) + tr(C2) - 2 tr((C1^(1/2) C2 C1^(1/2))^(1/2)), fp64, eigenvalues below zero
// taken as zero, and those beyond the rank that `count` allows (0: unknown count, full rank).
// One thread, D = 2,048: seconds. Errors: kMismatch for different widths.
double frechet_distance(const FeatureStats& a, const FeatureStats& b);

}  // namespace onestep
